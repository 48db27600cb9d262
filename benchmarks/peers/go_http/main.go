// Two session routes as a competent Go programmer writes them with net/http and go-redis, for
// comparison with SyncBridge's; see ../uvicorn_redis for what they do and leave out.
//
// A token's signature (HS256) is checked once and remembered. GET reads one hash and passes the
// state's bytes on; POST runs ../incremental.lua. Run it with GOMAXPROCS=1 to compare one core with
// one core.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	redisWait  = 2 * time.Second
	bodyBytes  = 1 << 20
	mostTokens = 16384
)

type claims struct {
	Subject string  `json:"sub"`
	Expires float64 `json:"exp"`
}

type server struct {
	redis  *redis.Client
	change *redis.Script
	secret []byte
	lock   sync.RWMutex
	tokens map[string]claims
}

type sessionBody struct {
	SessionID string          `json:"session_id"`
	UserID    string          `json:"user_id"`
	Version   int64           `json:"version"`
	UpdatedAt string          `json:"updated_at"`
	StateData json.RawMessage `json:"state_data"`
}

type changeBody struct {
	SessionID   string                     `json:"session_id"`
	BaseVersion int64                      `json:"base_version"`
	Changes     map[string]json.RawMessage `json:"changes"`
	DeletedKeys []string                   `json:"deleted_keys"`
	Strategy    string                     `json:"resolution_strategy"`
}

type changedBody struct {
	SessionID string   `json:"session_id"`
	Version   int64    `json:"version"`
	Applied   []string `json:"applied"`
	Conflicts []string `json:"conflicts"`
}

func (s *server) subject(r *http.Request) (string, error) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.lock.RLock()
	known, found := s.tokens[token]
	s.lock.RUnlock()
	if !found {
		var err error
		if known, err = s.verify(token); err != nil {
			return "", err
		}
		s.lock.Lock()
		if len(s.tokens) >= mostTokens {
			clear(s.tokens)
		}
		s.tokens[token] = known
		s.lock.Unlock()
	}
	if known.Expires < float64(time.Now().Unix()) {
		return "", errors.New("expired")
	}
	return known.Subject, nil
}

func (s *server) verify(token string) (found claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return found, errors.New("not a token")
	}
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
		return found, errors.New("bad signature")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(raw, &found)
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	user, err := s.subject(r)
	if err != nil {
		refuse(w, http.StatusUnauthorized)
		return
	}
	id := r.PathValue("id")
	ctx, cancel := context.WithTimeout(r.Context(), redisWait)
	defer cancel()
	stored, err := s.redis.HGetAll(ctx, "peer:"+id).Result()
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable)
	case len(stored) == 0:
		refuse(w, http.StatusNotFound)
	case stored["user_id"] != user:
		refuse(w, http.StatusForbidden)
	default:
		version, _ := strconv.ParseInt(stored["version"], 10, 64)
		w.Header().Set("Cache-Control", "no-cache")
		answer(w, r, version, &sessionBody{
			id, user, version, stored["updated_at"], json.RawMessage(stored["state"]),
		})
	}
}

func (s *server) apply(w http.ResponseWriter, r *http.Request) {
	user, err := s.subject(r)
	if err != nil {
		refuse(w, http.StatusUnauthorized)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytes))
	var body changeBody
	if err != nil || json.Unmarshal(data, &body) != nil || len(body.SessionID) != 36 {
		refuse(w, http.StatusBadRequest)
		return
	}
	overwrite := 0
	if body.Strategy == "client_wins" || body.Strategy == "merge" {
		overwrite = 1
	}
	arguments := []any{user, body.BaseVersion, overwrite, time.Now().UnixMilli(), len(body.Changes)}
	applied := make([]string, 0, len(body.Changes)+len(body.DeletedKeys))
	for key, value := range body.Changes {
		arguments = append(arguments, key, []byte(value))
		applied = append(applied, key)
	}
	for _, key := range body.DeletedKeys {
		arguments = append(arguments, key)
		applied = append(applied, key)
	}
	name := "peer:{" + body.SessionID + "}"
	ctx, cancel := context.WithTimeout(r.Context(), redisWait)
	defer cancel()
	keys := []string{name + ":meta", name + ":data", name + ":versions"}
	reply, err := s.change.Run(ctx, s.redis, keys, arguments...).Int64Slice()
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable)
	case reply[0] != http.StatusOK:
		refuse(w, int(reply[0]))
	default:
		answer(w, r, reply[1], &changedBody{body.SessionID, reply[1], applied, []string{}})
	}
}

func answer(w http.ResponseWriter, r *http.Request, version int64, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	id := r.Header.Get("X-Request-Id")
	if id == "" {
		var noise [16]byte
		_, _ = rand.Read(noise[:])
		id = hex.EncodeToString(noise[:])
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(data)))
	header.Set("ETag", fmt.Sprintf(`"%d"`, version))
	header.Set("X-Request-Id", id)
	_, _ = w.Write(data)
}

func refuse(w http.ResponseWriter, status int) {
	http.Error(w, `{"code":"refused"}`, status)
}

// seed stores the one session.
func (s *server) seed(ctx context.Context) error {
	state, name := os.Getenv("BENCH_STATE"), "peer:"+os.Getenv("BENCH_SESSION")
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(state), &values); err != nil {
		return err
	}
	user := os.Getenv("BENCH_USER")
	pipe := s.redis.Pipeline()
	pipe.HSet(ctx, name, "user_id", user, "version", 1,
		"updated_at", "2026-01-01T00:00:00.000Z", "state", state)
	name = "peer:{" + os.Getenv("BENCH_SESSION") + "}"
	pipe.HSet(ctx, name+":meta", "user_id", user, "version", 1)
	for key, value := range values {
		pipe.HSet(ctx, name+":data", key, []byte(value))
	}
	_, err := pipe.Exec(ctx)
	return err
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen on")
	script := flag.String("script", "", "file of incremental.lua")
	pool := flag.Int("pool", 32, "connections to Redis")
	flag.Parse()
	text, err := os.ReadFile(*script)
	if err != nil {
		log.Fatal(err)
	}
	s := &server{
		redis: redis.NewClient(&redis.Options{
			Network:     "unix",
			Addr:        strings.TrimPrefix(os.Getenv("REDIS_ADDR"), "unix://"),
			PoolSize:    *pool,
			PoolTimeout: redisWait,
		}),
		change: redis.NewScript(string(text)),
		secret: []byte(os.Getenv("JWT_SECRET")),
		tokens: make(map[string]claims),
	}
	if err := s.seed(context.Background()); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /session/{id}", s.get)
	mux.HandleFunc("POST /session/incremental", s.apply)
	log.Fatal((&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener))
}
