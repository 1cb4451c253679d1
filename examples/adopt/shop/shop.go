// Package shop is what the applications of this directory have in common: a web
// server for orders, and customers who sign in. How it keeps them is theirs.
package shop

import (
	"context"
	"encoding/json"
	"net/http"
)

// Store keeps each customer's orders.
type Store interface {
	Add(r *http.Request, title string) error
	Titles(r *http.Request) ([]string, error)
}

// Server serves a Store to users who have signed in. wrap may be nil.
func Server(store Store, wrap func(http.Handler) http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders/{title}", func(w http.ResponseWriter, r *http.Request) {
		if err := store.Add(r, r.PathValue("title")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		titles, err := store.Titles(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(titles)
	})
	if wrap == nil {
		return signIn(mux)
	}
	return signIn(wrap(mux))
}

type customerKey struct{}

// signIn stands for the application's own authentication.
func signIn(next http.Handler) http.Handler {
	passwords := map[string]string{"acme": "anvil", "bravo": "bridge"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		customer, password, _ := r.BasicAuth()
		if want, ok := passwords[customer]; !ok || password != want {
			http.Error(w, "sign in", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), customerKey{}, customer)))
	})
}

// Customer is who has signed in.
func Customer(r *http.Request) string {
	customer, _ := r.Context().Value(customerKey{}).(string)
	return customer
}
