-- +goose Up
CREATE TABLE plans (name text PRIMARY KEY, price integer NOT NULL);
INSERT INTO plans VALUES ('free', 0), ('gold', 90);
