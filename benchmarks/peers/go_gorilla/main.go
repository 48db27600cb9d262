// A WebSocket server as a competent Go programmer writes it with gorilla/websocket, for comparison.
//
// It does two things. A JSON heartbeat {"type":1,...} is decoded, and answered with
// {"type":2,...}. A text message "fan N" makes N prepared messages of 200 bytes go to every other
// connection: a prepared message is framed once, as gorilla advises for broadcasts.
//
//	-mode channel   a reader and a writer goroutine for each connection, the broadcast puts the
//	                message into each writer's channel (the shape of gorilla's chat example)
//	-mode direct    the broadcasting goroutine writes to every connection itself, under its lock
//
// Buffers are pooled and small, so that memory is not wasted. Run it with GOMAXPROCS=1 to compare
// one core with one core.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	payloadSize = 200
	queueSize   = 64
	writeWait   = 10 * time.Second
)

type heartbeat struct {
	Type          int    `json:"type"`
	Timestamp     int64  `json:"timestamp,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
	Payload       struct {
		ClientTime int64 `json:"client_time"`
		ServerTime int64 `json:"server_time,omitempty"`
		Version    int64 `json:"version"`
	} `json:"payload"`
}

type client struct {
	conn  *websocket.Conn
	queue chan any // []byte or *websocket.PreparedMessage
	lock  sync.Mutex
}

type server struct {
	direct  bool
	lock    sync.RWMutex
	clients map[*client]struct{}
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
	c := &client{conn: conn}
	if !s.direct {
		c.queue = make(chan any, queueSize)
		go c.write()
	}
	s.lock.Lock()
	s.clients[c] = struct{}{}
	s.lock.Unlock()
	go s.read(c)
}

func (s *server) read(c *client) {
	defer s.forget(c)
	c.conn.SetReadLimit(65536)
	for {
		_, data, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		if command, found := bytes.CutPrefix(data, fanCommand); found {
			if messages, err := strconv.Atoi(string(command)); err == nil {
				s.fanOut(c, messages)
			}
			continue
		}
		if reply := answer(data); reply != nil {
			s.deliver(c, reply)
		}
	}
}

func answer(data []byte) []byte {
	var message heartbeat
	if json.Unmarshal(data, &message) != nil || message.Type != 1 {
		return nil
	}
	message.Type = 2
	now := time.Now()
	message.Timestamp = now.Unix()
	message.Payload.ServerTime = now.UnixMilli()
	reply, _ := json.Marshal(&message)
	return reply
}

func (s *server) forget(c *client) {
	s.lock.Lock()
	delete(s.clients, c)
	s.lock.Unlock()
	if c.queue != nil {
		close(c.queue)
	}
	c.conn.Close()
}

func (s *server) fanOut(controller *client, messages int) {
	s.lock.RLock()
	defer s.lock.RUnlock()
	for range messages {
		prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, broadcast)
		if err != nil {
			log.Fatal(err)
		}
		for c := range s.clients {
			if c != controller {
				s.deliver(c, prepared)
			}
		}
	}
}

// deliver never drops: a full queue is waited for, so that no missing frame looks like speed.
func (s *server) deliver(c *client, message any) {
	if s.direct {
		c.lock.Lock()
		defer c.lock.Unlock()
		c.put(message)
		return
	}
	c.queue <- message
}

func (c *client) write() {
	for message := range c.queue {
		if c.put(message) != nil {
			c.conn.Close()
		}
	}
}

func (c *client) put(message any) error {
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	if prepared, ok := message.(*websocket.PreparedMessage); ok {
		return c.conn.WritePreparedMessage(prepared)
	}
	return c.conn.WriteMessage(websocket.TextMessage, message.([]byte))
}

var fanCommand = []byte("fan ")

var broadcast = func() []byte {
	head, tail := `{"type":13,"payload":{"message":"`, `"}}`
	return []byte(head + strings.Repeat("x", payloadSize-len(head)-len(tail)) + tail)
}()

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen on")
	mode := flag.String("mode", "channel", "channel or direct")
	flag.Parse()
	s := &server{direct: *mode == "direct", clients: make(map[*client]struct{})}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", s.serve)
	log.Fatal((&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener))
}
