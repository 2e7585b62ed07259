package httpapi

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net/http"
	"time"
)

// Limits bound what one connection may cost. Zero values mean the defaults.
type Limits struct {
	ReadHeader time.Duration // to send the request's head; 10 s
	Read       time.Duration // to send all of the request; 30 s
	Write      time.Duration // to take the answer; none, large answers have their own
	Idle       time.Duration // between requests; 5 min
	HeadBytes  int           // of request line and headers; 64 KiB
}

// NewServer makes a net/http server with limits. What net/http has to say of
// bad clients goes to the log at debug level; a panic is an error.
func NewServer(h http.Handler, l Limits, logger *slog.Logger) *http.Server {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&l.ReadHeader, 10*time.Second)
	or(&l.Read, 30*time.Second)
	or(&l.Idle, 5*time.Minute)
	if l.HeadBytes == 0 {
		l.HeadBytes = 64 << 10
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: l.ReadHeader, ReadTimeout: l.Read, WriteTimeout: l.Write,
		IdleTimeout: l.Idle, MaxHeaderBytes: l.HeadBytes, ConnContext: withConn,
		ErrorLog: log.New(complaints{logger}, "", 0),
	}
}

// complaints takes what net/http has to say: of bad clients at debug level,
// and of panics, which end one connection, as errors.
type complaints struct{ log *slog.Logger }

func (c complaints) Write(b []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(b, []byte("panic serving")) {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, string(bytes.TrimSpace(b)))
	return len(b), nil
}
