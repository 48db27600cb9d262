// Durable session updates as a competent Go programmer writes them with gorilla/websocket and
// go-redis, for comparison. One process, a session's state is one JSON document in Redis.
//
// A connection begins with AUTH {"type":7,"payload":{"token":...}}; the session is the one that the
// token names (the signature is not checked, nobody measures it here). A STATE_UPDATE
// {"type":5,"payload":{"key":...,"value":...}} is applied by optimistic locking, as the Redis
// manual shows it: WATCH, GET, merge here, MULTI SET EXEC, and once more when somebody was faster.
// After Redis has it, every device of the session is told, the sender too: its copy is the
// acknowledgement.
//
// Values are kept as json.RawMessage, so that only the top level of a state is decoded. A session
// is locked meanwhile, so that its updates leave in the order of their versions; different sessions
// run side by side, as many as the pool has connections. Run it with GOMAXPROCS=1 to compare one
// core with one core.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

const (
	writeWait   = 10 * time.Second
	redisWait   = 30 * time.Second
	maxAttempts = 8
	authType    = 7
	welcomeType = 8
	updateType  = 5
	errorType   = 6
)

// document is what Redis has under "session:<id>".
type document struct {
	Version int64                      `json:"version"`
	State   map[string]json.RawMessage `json:"state"`
}

type message struct {
	Type          int             `json:"type"`
	SessionID     string          `json:"session_id,omitempty"`
	DeviceID      string          `json:"device_id,omitempty"`
	Timestamp     int64           `json:"timestamp,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	Payload       json.RawMessage `json:"payload"`
}

type authPayload struct {
	Token    string `json:"token"`
	DeviceID string `json:"device_id"`
}

type updatePayload struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

type updatedPayload struct {
	Version     int64                      `json:"version"`
	PrevVersion int64                      `json:"prev_version"`
	Changes     map[string]json.RawMessage `json:"changes"`
	DeviceID    string                     `json:"device_id"`
}

type client struct {
	conn     *websocket.Conn
	lock     sync.Mutex
	deviceID string
	session  *session
}

type session struct {
	id      string
	lock    sync.Mutex
	clients []*client
}

type server struct {
	redis    *redis.Client
	lock     sync.Mutex
	sessions map[string]*session
}

var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	WriteBufferPool: &sync.Pool{},
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	go s.read(&client{conn: conn})
}

func (s *server) read(c *client) {
	defer s.leave(c)
	c.conn.SetReadLimit(65536)
	for {
		_, data, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(data, &m) != nil {
			return
		}
		switch {
		case m.Type == authType && c.session == nil:
			s.join(c, &m)
		case m.Type == updateType && c.session != nil:
			s.update(c, &m)
		}
	}
}

func (s *server) join(c *client, m *message) {
	var auth authPayload
	if json.Unmarshal(m.Payload, &auth) != nil {
		return
	}
	id := sessionOf(auth.Token)
	s.lock.Lock()
	found := s.sessions[id]
	if found == nil {
		found = &session{id: id}
		s.sessions[id] = found
	}
	s.lock.Unlock()
	c.deviceID, c.session = auth.DeviceID, found
	found.lock.Lock()
	found.clients = append(found.clients, c)
	found.lock.Unlock()
	c.send(&message{Type: welcomeType, SessionID: id, Payload: json.RawMessage("{}")})
}

func (s *server) leave(c *client) {
	c.conn.Close()
	if c.session == nil {
		return
	}
	c.session.lock.Lock()
	defer c.session.lock.Unlock()
	for i, other := range c.session.clients {
		if other == c {
			c.session.clients = append(c.session.clients[:i], c.session.clients[i+1:]...)
			return
		}
	}
}

// sessionOf reads the claim of a JWT.
func sessionOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		SessionID string `json:"session_id"`
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	_ = json.Unmarshal(raw, &claims)
	return claims.SessionID
}

func (s *server) update(c *client, m *message) {
	var update updatePayload
	if json.Unmarshal(m.Payload, &update) != nil || update.Key == "" {
		return
	}
	c.session.lock.Lock()
	defer c.session.lock.Unlock()
	version, err := s.store(c.session.id, &update)
	if err != nil {
		text, _ := json.Marshal(map[string]string{"message": err.Error()})
		c.send(&message{Type: errorType, CorrelationID: m.CorrelationID, Payload: text})
		return
	}
	payload, _ := json.Marshal(&updatedPayload{
		Version:     version,
		PrevVersion: version - 1,
		Changes:     map[string]json.RawMessage{update.Key: update.Value},
		DeviceID:    c.deviceID,
	})
	out, _ := json.Marshal(&message{
		Type:          updateType,
		SessionID:     c.session.id,
		DeviceID:      c.deviceID,
		Timestamp:     time.Now().Unix(),
		CorrelationID: m.CorrelationID,
		Payload:       payload,
	})
	for _, other := range c.session.clients {
		other.write(out)
	}
}

// store merges one change into the document and returns the new version.
func (s *server) store(id string, update *updatePayload) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), redisWait)
	defer cancel()
	key := "session:" + id
	var version int64
	merge := func(tx *redis.Tx) error {
		blob, err := tx.Get(ctx, key).Bytes()
		if err != nil && err != redis.Nil {
			return err
		}
		found := document{State: map[string]json.RawMessage{}}
		if len(blob) > 0 {
			if err := json.Unmarshal(blob, &found); err != nil {
				return err
			}
		}
		found.State[update.Key] = update.Value
		found.Version++
		version = found.Version
		merged, err := json.Marshal(&found)
		if err != nil {
			return err
		}
		_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Set(ctx, key, merged, 0)
			return nil
		})
		return err
	}
	for range maxAttempts {
		err := s.redis.Watch(ctx, merge, key)
		if !errors.Is(err, redis.TxFailedErr) {
			return version, err
		}
	}
	return 0, redis.TxFailedErr
}

func (c *client) send(m *message) {
	data, _ := json.Marshal(m)
	c.write(data)
}

func (c *client) write(data []byte) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	if c.conn.WriteMessage(websocket.TextMessage, data) != nil {
		c.conn.Close()
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen on")
	socket := flag.String("redis", "", "Redis' unix socket")
	pool := flag.Int("pool", 32, "connections to Redis")
	flag.Parse()
	s := &server{sessions: make(map[string]*session)}
	s.redis = redis.NewClient(&redis.Options{
		Network:     "unix",
		Addr:        *socket,
		PoolSize:    *pool,
		PoolTimeout: redisWait,
	})
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", s.serve)
	log.Fatal((&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener))
}
