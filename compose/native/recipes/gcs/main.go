// A Google Cloud Storage for tests: fake-gcs-server, which speaks the JSON API, and in front of it the one request of the XML
// API that it lacks: a PUT of an object, whole or as a copy of another, with x-goog-if-generation-match. The server itself decides
// about the condition.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:4443", "host:port")
	root := flag.String("root", "", "the folder of the buckets; none: memory")
	bucket := flag.String("bucket", "lake", "a bucket to create")
	flag.Parse()
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, StorageRoot: *root, PublicHost: *listen, ExternalURL: "http://" + *listen,
	})
	if err != nil {
		log.Fatal(err)
	}
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: *bucket})
	inner := server.HTTPHandler()
	handler := func(w http.ResponseWriter, r *http.Request) {
		// It takes any other name for that of a bucket.
		r.Host = *listen
		parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/", 2)
		if r.Method != http.MethodPut || len(parts) < 2 || parts[0] == "upload" || parts[0] == "storage" || r.URL.RawQuery != "" {
			inner.ServeHTTP(w, r)
			return
		}
		name, err := url.PathUnescape(parts[1])
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		query := url.Values{"uploadType": {"media"}, "name": {name}}
		upload := r.Clone(r.Context())
		if source := r.Header.Get("x-goog-copy-source"); source != "" {
			from := strings.SplitN(strings.TrimPrefix(source, "/"), "/", 2)
			old, err := url.PathUnescape(from[len(from)-1])
			if err != nil || len(from) < 2 {
				http.Error(w, "x-goog-copy-source", http.StatusBadRequest)
				return
			}
			// Its own copy request knows no condition.
			get := httptest.NewRequest(http.MethodGet, "/", nil)
			get.Host, get.URL = *listen, &url.URL{Path: "/" + from[0] + "/" + old}
			found := httptest.NewRecorder()
			inner.ServeHTTP(found, get)
			if found.Code != http.StatusOK {
				http.Error(w, found.Body.String(), found.Code)
				return
			}
			upload.Body, upload.ContentLength = io.NopCloser(found.Body), int64(found.Body.Len())
		}
		if match := r.Header.Get("x-goog-if-generation-match"); match != "" {
			query.Set("ifGenerationMatch", match)
		}
		upload.Method = http.MethodPost
		upload.URL = &url.URL{Path: "/upload/storage/v1/b/" + parts[0] + "/o", RawQuery: query.Encode()}
		upload.RequestURI = upload.URL.RequestURI()
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, upload)
		var object struct{ Etag, Generation string }
		if json.Unmarshal(answer.Body.Bytes(), &object) == nil && answer.Code == http.StatusOK {
			w.Header().Set("ETag", "\""+object.Etag+"\"")
			w.Header().Set("x-goog-generation", object.Generation)
		}
		w.WriteHeader(answer.Code)
		if answer.Code != http.StatusOK {
			w.Write(answer.Body.Bytes())
		}
	}
	log.Printf("listening on %s", *listen)
	log.Fatal(http.ListenAndServe(*listen, http.HandlerFunc(handler)))
}
