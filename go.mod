module github.com/session2/session2

go 1.25.0
