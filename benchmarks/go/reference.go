// The peer of benchmarks/transfer.py: PUT stores a body and its SHA-256 while receiving, GET sends a file.
// Standard library only, as short as it goes.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", ".", "where files lie")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := filepath.Join(*dir, filepath.Base(r.URL.Path))
		if r.Method != http.MethodPut {
			http.ServeFile(w, r, path)
			return
		}
		file, err := os.Create(path)
		if err == nil {
			hash := sha256.New()
			_, err = io.CopyBuffer(io.MultiWriter(file, hash), r.Body, make([]byte, 256*1024))
			file.Close()
			w.Header().Set("X-Content-SHA256", hex.EncodeToString(hash.Sum(nil)))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})))
}
