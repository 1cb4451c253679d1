package sandbox_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"
)

// Code that opens a second connection in its transaction would wait for ever.
func TestSecondConnectionInATransaction(t *testing.T) {
	p := newPlace(t)
	s := newSandbox(t, p)
	s.Wait = 20 * time.Millisecond
	db := openGORM(t, begin(t, s), gorm.Config{})
	err := db.Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&user{Name: "a"}).Error; err != nil {
			return err
		}
		return db.Create(&user{Name: "b"}).Error // not tx
	})
	wantErr(t, err, "waited too long", "20ms", "connection 1", "connection 2", "a transaction",
		"sandbox_test.TestSecondConnectionInATransaction", "queue_test.go:", "the tx that its function was given", "Env.Clone")
	if err := db.Create(&user{Name: "c"}).Error; err != nil {
		t.Errorf("after it: %v", err)
	}
	end(t, p, s)
}

func TestWaitEndsWithCtx(t *testing.T) {
	p, s, db := begun(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = db.ExecContext(ctx, "SELECT 1")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	wantErr(t, err, "TestWaitEndsWithCtx", `can't begin "SELECT 1"`)
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	end(t, p, s)
}

// Goroutines of one test share the connection; each of their transactions is
// whole.
func TestConcurrency(t *testing.T) {
	p, s, pool := begun(t)
	db := openGORM(t, pool, gorm.Config{})
	const counterID = 1000 // no sequence's
	if err := db.Create(&user{ID: counterID, Name: "counter"}).Error; err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const workers, rounds = 8, 15
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				name := fmt.Sprint(w, "-", i)
				err := db.Transaction(func(tx *gorm.DB) error {
					var u user
					if err := tx.First(&u, counterID).Error; err != nil {
						return err
					}
					if err := tx.Model(&u).Update("age", u.Age+1).Error; err != nil {
						return err
					}
					if i%3 == 0 {
						return errInner // rolled back
					}
					return tx.Create(&user{Name: name}).Error
				})
				if err != nil && !errors.Is(err, errInner) {
					t.Errorf("transaction %s: %v", name, err)
				}
				if err := db.Create(&order{Title: name}).Error; err != nil {
					t.Errorf("order %s: %v", name, err)
				}
				if err := db.Exec("INSERT INTO users (id, name) VALUES (?, 'again')", counterID).Error; err == nil {
					t.Error("a duplicate was created")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
				_ = db.WithContext(ctx).Find(&[]order{}).Error
				cancel()
			}
		})
	}
	wg.Wait()
	var counter user
	if err := db.First(&counter, counterID).Error; err != nil {
		t.Fatal(err)
	}
	const kept = workers * rounds * 2 / 3
	if counter.Age != kept || count(t, pool, "users") != kept+1 || count(t, pool, "orders") != workers*rounds {
		t.Errorf("counter %d, %d users, %d orders", counter.Age, count(t, pool, "users"), count(t, pool, "orders"))
	}
	end(t, p, s)
}

// Waiters get the connection in the order in which they came.
func TestOrderOfWaiters(t *testing.T) {
	p, s, db := begun(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		before := s.Waiting()
		wg.Go(func() {
			if _, err := db.Exec("INSERT INTO users (name, age) VALUES ($1, $2)", fmt.Sprint("u", i), i); err != nil {
				t.Error(err)
			}
		})
		for s.Waiting() == before {
			runtime.Gosched()
		}
	}
	exec(t, tx, "INSERT INTO users (name, age) VALUES ('first', -1)")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	rows, err := db.Query("SELECT age FROM users ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for want := -1; rows.Next(); want++ {
		var age int
		if err := rows.Scan(&age); err != nil || age != want {
			t.Errorf("user %d stands where %d should: %v", age, want, err)
		}
	}
	end(t, p, s)
}

// A connection that is closed in a transaction lets go of the physical one.
func TestCloseInATransaction(t *testing.T) {
	p, s, db := begun(t)
	dc, err := s.Connector().Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := dc.(driver.ConnBeginTx).BeginTx(t.Context(), driver.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dc.(driver.ExecerContext).ExecContext(t.Context(), "INSERT INTO users (name) VALUES ('a')", nil); err != nil {
		t.Fatal(err)
	}
	if dc.(driver.Validator).IsValid() {
		t.Error("a connection in a transaction is good for others")
	}
	if err := dc.Close(); err != nil {
		t.Error(err)
	}
	if n := count(t, db, "users"); n != 0 {
		t.Errorf("%d users", n)
	}
	if err := tx.Rollback(); err == nil {
		t.Error("rolled back what had ended")
	}
	if n := count(t, db, "users"); n != 0 {
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}
