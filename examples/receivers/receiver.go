// A receiver of events in Go, without packages: checks the signature, and knows repetitions.
//
//	WEBHOOK_SECRET=whsec_... go run examples/receivers/receiver.go 9000
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	keys [][]byte
	seen sync.Map // yours: a table with the ids of what was handled
)

func isSigned(header http.Header, body []byte) bool {
	id, at := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
		for _, one := range strings.Fields(header.Get("webhook-signature")) {
			_, text, _ := strings.Cut(one, ",")
			told, err := base64.StdEncoding.DecodeString(text)
			if err == nil && hmac.Equal(told, mac.Sum(nil)) {
				return true
			}
		}
	}
	return false
}

func receive(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(answer, request.Body, 1<<20))
	if err != nil || !isSigned(request.Header, body) {
		answer.WriteHeader(http.StatusUnauthorized)
		return
	}
	if _, again := seen.LoadOrStore(request.Header.Get("webhook-id"), true); !again {
		var event struct {
			Type    string `json:"type"`
			Session string `json:"session_id"`
		}
		if json.Unmarshal(body, &event) == nil {
			fmt.Println(event.Type, event.Session)
		}
	}
	answer.WriteHeader(http.StatusNoContent)
}

func main() {
	for _, secret := range strings.Fields(os.Getenv("WEBHOOK_SECRET")) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			panic("WEBHOOK_SECRET: whsec_ and base64 are expected")
		}
		keys = append(keys, key)
	}
	http.HandleFunc("/", receive)
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
