// A stand-in for LiveKit's Egress worker: it records nothing, and says that it does.
//
// A real LiveKit server finds it by its Redis and sends the webhooks of a recording: started, updated,
// ended with a file. A room whose name contains "fail" is not recorded, but fails. One argument: the
// address of the Redis, host:port.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/redis"
	"github.com/livekit/protocol/rpc"
	"github.com/livekit/psrpc"
)

type worker struct {
	mu      sync.Mutex
	io      rpc.IOInfoClient
	handler rpc.EgressHandlerServer
	active  map[string]*livekit.EgressInfo
}

func (w *worker) StartEgress(ctx context.Context, req *rpc.StartEgressRequest) (*livekit.EgressInfo, error) {
	room := req.GetRoomComposite()
	info := &livekit.EgressInfo{
		EgressId:  req.EgressId,
		RoomId:    req.RoomId,
		RoomName:  room.GetRoomName(),
		Status:    livekit.EgressStatus_EGRESS_STARTING,
		StartedAt: time.Now().UnixNano(),
		Request:   &livekit.EgressInfo_RoomComposite{RoomComposite: room},
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active[info.EgressId] = info
	if err := w.handler.RegisterStopEgressTopic(info.EgressId); err != nil {
		return nil, err
	}
	if _, err := w.io.CreateEgress(ctx, info); err != nil {
		return nil, err
	}
	go w.begin(info)
	return info, nil
}

func (w *worker) begin(info *livekit.EgressInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(info.RoomName, "fail") {
		info.Status, info.Error = livekit.EgressStatus_EGRESS_FAILED, "told to fail"
		info.EndedAt = time.Now().UnixNano()
		delete(w.active, info.EgressId)
	} else {
		info.Status = livekit.EgressStatus_EGRESS_ACTIVE
	}
	w.tell(info)
}

func (w *worker) StopEgress(ctx context.Context, req *livekit.StopEgressRequest) (*livekit.EgressInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	info := w.active[req.EgressId]
	if info == nil {
		return nil, psrpc.NewErrorf(psrpc.NotFound, "no such egress")
	}
	delete(w.active, req.EgressId)
	info.Status, info.EndedAt = livekit.EgressStatus_EGRESS_COMPLETE, time.Now().UnixNano()
	file := &livekit.FileInfo{
		Filename: info.EgressId + ".ogg",
		Location: "https://recordings.example/" + info.EgressId + ".ogg",
		Duration: info.EndedAt - info.StartedAt,
		Size:     1,
	}
	info.FileResults = []*livekit.FileInfo{file}
	w.tell(info)
	return info, nil
}

func (w *worker) tell(info *livekit.EgressInfo) {
	info.UpdatedAt = time.Now().UnixNano()
	if _, err := w.io.UpdateEgress(context.Background(), info); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func (w *worker) StartEgressAffinity(context.Context, *rpc.StartEgressRequest) float32 { return 1 }

func (w *worker) ListActiveEgress(context.Context, *rpc.ListActiveEgressRequest) (*rpc.ListActiveEgressResponse, error) {
	return &rpc.ListActiveEgressResponse{}, nil
}

func (w *worker) UpdateEgress(context.Context, *livekit.UpdateEgressRequest) (*livekit.EgressInfo, error) {
	return nil, psrpc.NewErrorf(psrpc.Unimplemented, "not here")
}

func (w *worker) UpdateStream(context.Context, *livekit.UpdateStreamRequest) (*livekit.EgressInfo, error) {
	return nil, psrpc.NewErrorf(psrpc.Unimplemented, "not here")
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	bus := psrpc.NewRedisMessageBus(must(redis.GetRedisClient(&redis.RedisConfig{Address: os.Args[1]})))
	w := &worker{active: map[string]*livekit.EgressInfo{}}
	w.io = must(rpc.NewIOInfoClient(bus))
	w.handler = must(rpc.NewEgressHandlerServer(w, bus))
	server := must(rpc.NewEgressInternalServer(w, bus))
	if err := server.RegisterStartEgressTopic(""); err != nil {
		must(0, err)
	}
	fmt.Println("ready")
	select {}
}
