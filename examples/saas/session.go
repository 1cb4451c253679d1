package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"gorm.io/gorm"
)

const (
	cookieName  = "session"
	sessionTime = 12 * time.Hour
)

// nobody has a password that nothing matches: an unknown e-mail takes as long
// as a wrong password.
var nobody = sync.OnceValue(func() []byte {
	hash, _ := bcrypt.GenerateFromPassword([]byte(rand.Text()), passwordCost) // errors are of long passwords
	return hash
})

// passwordCost is how much work a guess is. Tests lower it.
var passwordCost = bcrypt.DefaultCost

func (a *app) loginPage(w http.ResponseWriter, r *http.Request) {
	notice := ""
	if r.URL.Query().Has("new") {
		notice = "Your database is ready. Sign in."
	}
	a.login(w, r, http.StatusOK, notice)
}

func (a *app) login(w http.ResponseWriter, r *http.Request, status int, notice string) {
	account, err := a.account(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.render(w, r, status, "login", map[string]any{"Account": account, "Notice": notice})
}

// signIn looks for the user in the tenant's database: there are no others.
func (a *app) signIn(w http.ResponseWriter, r *http.Request) {
	db := a.db.WithContext(r.Context())
	user := User{Password: nobody()}
	err := db.First(&user, "email = ?", r.PostFormValue("email")).Error
	if err != nil && !errors.Is(err, gorm.ErrRecordNotFound) {
		a.fail(w, r, err)
		return
	}
	if bcrypt.CompareHashAndPassword(user.Password, []byte(r.PostFormValue("password"))) != nil || user.ID == 0 {
		a.login(w, r, http.StatusUnauthorized, "E-mail or password is wrong.")
		return
	}
	token := rand.Text()
	hash := sha256.Sum256([]byte(token))
	if err := db.Create(&Session{Hash: hash[:], UserID: user.ID, Expires: time.Now().Add(sessionTime)}).Error; err != nil {
		a.fail(w, r, err)
		return
	}
	if err := db.Where("expires < ?", time.Now()).Delete(&Session{}).Error; err != nil {
		a.fail(w, r, err)
		return
	}
	// Without Domain the cookie is sent to this host alone.
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: token, Path: "/", HttpOnly: true, Secure: r.TLS != nil,
		SameSite: http.SameSiteLaxMode, MaxAge: int(sessionTime.Seconds())})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) signOut(w http.ResponseWriter, r *http.Request) {
	session := sessionOf(r)
	if err := a.db.WithContext(r.Context()).Delete(&Session{Hash: session.Hash}).Error; err != nil {
		a.fail(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

type sessionKey struct{}

// signedIn lets those through who have a session in the tenant's database. It is
// where this application says who may use a tenant.
func (a *app) signedIn(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie(cookieName)
		if err != nil {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		hash := sha256.Sum256([]byte(cookie.Value))
		var session Session
		err = a.db.WithContext(r.Context()).Joins("User").First(&session, "hash = ? AND expires > ?", hash[:], time.Now()).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, session)))
	}
}

func sessionOf(r *http.Request) Session {
	session, _ := r.Context().Value(sessionKey{}).(Session)
	return session
}
