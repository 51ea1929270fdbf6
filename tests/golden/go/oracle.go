// What Go's own encoding/json and strconv do, asked one case per line of standard input.
//
// Each line is {"ask": "...", "text": "..."} where every character of text stands for one byte; each
// answer is {"bytes": "..."} in the same form, or {"error": true}. Asks: the name of a message (decode
// the text into it, encode it again), "string" (encode), "number" (parse a float, encode it) and
// "quote" (%q). record.py asks the cases and keeps the answers in recorded.json.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strconv"
)

type installRequest struct {
	Backend      string `json:"backend"`
	ModelID      string `json:"model_id,omitempty"`
	Galleries    string `json:"backend_galleries,omitempty"`
	URI          string `json:"uri,omitempty"`
	Name         string `json:"name,omitempty"`
	Alias        string `json:"alias,omitempty"`
	ReplicaIndex int32  `json:"replica_index,omitempty"`
	Force        bool   `json:"force,omitempty"`
	OpID         string `json:"op_id,omitempty"`
}

type installReply struct {
	Success bool   `json:"success"`
	Address string `json:"address,omitempty"`
	Error   string `json:"error,omitempty"`
}

type upgradeRequest struct {
	Backend      string `json:"backend"`
	Galleries    string `json:"backend_galleries,omitempty"`
	URI          string `json:"uri,omitempty"`
	Name         string `json:"name,omitempty"`
	Alias        string `json:"alias,omitempty"`
	ReplicaIndex int32  `json:"replica_index,omitempty"`
	OpID         string `json:"op_id,omitempty"`
}

type stoppingReply struct {
	Success bool     `json:"success"`
	Error   string   `json:"error,omitempty"`
	Stopped []string `json:"stopped_process_keys,omitempty"`
	Reports bool     `json:"reports_stopped_processes,omitempty"`
}

type backendInfo struct {
	Name        string `json:"name"`
	IsSystem    bool   `json:"is_system"`
	IsMeta      bool   `json:"is_meta"`
	InstalledAt string `json:"installed_at,omitempty"`
	GalleryURL  string `json:"gallery_url,omitempty"`
	Version     string `json:"version,omitempty"`
	URI         string `json:"uri,omitempty"`
	Digest      string `json:"digest,omitempty"`
}

type listReply struct {
	Backends []backendInfo `json:"backends"`
	Error    string        `json:"error,omitempty"`
}

type progress struct {
	OpID       string  `json:"op_id"`
	NodeID     string  `json:"node_id"`
	Backend    string  `json:"backend"`
	FileName   string  `json:"file_name,omitempty"`
	Current    string  `json:"current,omitempty"`
	Total      string  `json:"total,omitempty"`
	Percentage float64 `json:"percentage"`
	Phase      string  `json:"phase,omitempty"`
}

type modelStopReply struct {
	Matched    bool   `json:"matched"`
	Freed      bool   `json:"freed"`
	Terminated bool   `json:"terminated"`
	ProcessKey string `json:"process_key"`
	Address    string `json:"address,omitempty"`
	Error      string `json:"error,omitempty"`
}

type runningModel struct {
	ModelID      string `json:"model_id"`
	ReplicaIndex int    `json:"replica_index"`
	Address      string `json:"address,omitempty"`
}

type modelsRunningReply struct {
	Models []runningModel `json:"models"`
	Error  string         `json:"error,omitempty"`
}

type registerRequest struct {
	Name          string            `json:"name"`
	Address       string            `json:"address"`
	HTTPAddress   string            `json:"http_address"`
	TotalVRAM     uint64            `json:"total_vram"`
	AvailableVRAM uint64            `json:"available_vram"`
	GPUVendor     string            `json:"gpu_vendor"`
	Token         string            `json:"token,omitempty"`
	NodeType      string            `json:"node_type,omitempty"`
	TotalRAM      *uint64           `json:"total_ram,omitempty"`
	AvailableRAM  *uint64           `json:"available_ram,omitempty"`
	TotalDisk     *uint64           `json:"total_disk,omitempty"`
	AvailableDisk *uint64           `json:"available_disk,omitempty"`
	ComputeCap    *string           `json:"gpu_compute_capability,omitempty"`
	Capability    *string           `json:"capability,omitempty"`
	MaxReplicas   *int              `json:"max_replicas_per_model,omitempty"`
	VRAMBudget    string            `json:"vram_budget,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

type heartbeat struct {
	AvailableVRAM *uint64 `json:"available_vram,omitempty"`
	TotalVRAM     *uint64 `json:"total_vram,omitempty"`
	AvailableRAM  *uint64 `json:"available_ram,omitempty"`
	GPUVendor     *string `json:"gpu_vendor,omitempty"`
	TotalDisk     *uint64 `json:"total_disk,omitempty"`
	AvailableDisk *uint64 `json:"available_disk,omitempty"`
}

func message(ask string) any {
	switch ask {
	case "BackendInstallRequest":
		return &installRequest{}
	case "BackendInstallReply":
		return &installReply{}
	case "BackendUpgradeRequest":
		return &upgradeRequest{}
	case "BackendUpgradeReply", "BackendDeleteReply":
		return &stoppingReply{}
	case "BackendDeleteRequest":
		return &struct {
			Backend string `json:"backend"`
		}{}
	case "BackendListReply":
		return &listReply{}
	case "BackendInstallProgress":
		return &progress{}
	case "ModelUnloadRequest":
		return &struct {
			ModelName string `json:"model_name"`
			Address   string `json:"address,omitempty"`
		}{}
	case "ModelDeleteRequest":
		return &struct {
			ModelName string `json:"model_name"`
		}{}
	case "ModelUnloadReply", "ModelDeleteReply":
		return &struct {
			Success bool   `json:"success"`
			Error   string `json:"error,omitempty"`
		}{}
	case "ModelStopRequest":
		return &struct {
			ModelName       string `json:"model_name"`
			ProcessKey      string `json:"process_key"`
			ExpectedAddress string `json:"expected_address"`
			Force           bool   `json:"force,omitempty"`
			ConfigRevision  string `json:"config_revision,omitempty"`
		}{}
	case "ModelStopReply":
		return &modelStopReply{}
	case "ModelsRunningReply":
		return &modelsRunningReply{}
	case "FilesEnsureRequest":
		return &struct {
			Key string `json:"key"`
		}{}
	case "FilesStageRequest":
		return &struct {
			LocalPath string `json:"local_path"`
			Key       string `json:"key"`
		}{}
	case "FilesListdirRequest":
		return &struct {
			KeyPrefix string `json:"key_prefix"`
		}{}
	case "RegisterRequest":
		return &registerRequest{}
	case "Heartbeat":
		return &heartbeat{}
	}
	panic("unknown message " + ask)
}

func answer(ask string, text []byte) ([]byte, error) {
	switch ask {
	case "string":
		return json.Marshal(string(text))
	case "number":
		value, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return nil, err
		}
		return json.Marshal(value)
	case "quote":
		return []byte(strconv.Quote(string(text))), nil
	}
	into := message(ask)
	err := json.Unmarshal(text, into)
	var wrongType *json.UnmarshalTypeError
	if ask == "Heartbeat" && errors.As(err, &wrongType) {
		err = nil // the frontend goes on with what it could store
	}
	if ask == "Heartbeat" && err != nil {
		into, err = &heartbeat{}, nil
	}
	if err != nil {
		return nil, err
	}
	switch reply := into.(type) { // what workers send: an empty slice here is null, there []
	case *listReply:
		if len(reply.Backends) == 0 {
			reply.Backends = nil
		}
	case *modelsRunningReply:
		if reply.Models == nil {
			reply.Models = []runningModel{}
		}
	}
	return json.Marshal(into)
}

func toBytes(text string) []byte {
	var out []byte
	for _, r := range text {
		out = append(out, byte(r))
	}
	return out
}

func fromBytes(raw []byte) string {
	var out []rune
	for _, b := range raw {
		out = append(out, rune(b))
	}
	return string(out)
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		var question struct{ Ask, Text string }
		if err := json.Unmarshal(in.Bytes(), &question); err != nil {
			panic(err)
		}
		reply := map[string]any{"error": true}
		if raw, err := answer(question.Ask, toBytes(question.Text)); err == nil {
			reply = map[string]any{"bytes": fromBytes(raw)}
		}
		line, _ := json.Marshal(reply)
		out.Write(append(line, '\n'))
	}
}
