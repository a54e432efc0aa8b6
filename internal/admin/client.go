package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

// Client speaks to the daemon of a data directory.
type Client struct {
	dataDir string
	http    *http.Client
}

// Owner gives the user whom the daemon's socket belongs to.
func (c *Client) Owner() (uid int, err error) {
	info, err := os.Stat(filepath.Join(c.dataDir, Socket))
	if err != nil {
		return 0, fmt.Errorf("look whose the daemon is: %w", err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid), nil
}

// NewClient makes a client; it connects with each call.
func NewClient(dataDir string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, done, err := shorten(dataDir)
		if err != nil {
			return nil, err
		}
		defer done()
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(short, Socket))
	}
	return &Client{dataDir: dataDir, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// About asks the daemon what it is.
func (c *Client) About(ctx context.Context) (About, error) {
	var a About
	resp, err := c.do(ctx, http.MethodGet, "/about", nil)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// Join has the daemon join; progress is told through say.
func (c *Client) Join(ctx context.Context, addrs []string, say func(string)) error {
	return c.follow(ctx, "/join", joinRequest{Addrs: addrs}, say)
}

// Start tells a daemon that waited for its certificate that the files are there.
func (c *Client) Start(ctx context.Context) error {
	return c.follow(ctx, "/start", struct{}{}, func(string) {})
}

// Leave has the daemon leave its cluster and end.
func (c *Client) Leave(ctx context.Context, force bool, say func(string)) error {
	return c.follow(ctx, "/leave", leaveRequest{Force: force}, say)
}

func (c *Client) follow(ctx context.Context, path string, body any, say func(string)) error {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var s Step
		switch err := d.Decode(&s); {
		case err != nil:
			return fmt.Errorf("the daemon ended in the middle of it; its log says why: %w", err)
		case s.Error != "":
			return errors.New(s.Error)
		case s.Done:
			return nil
		}
		say(s.Say)
	}
}

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, reader)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon at %s (does it run? are you root?): %w", filepath.Join(c.dataDir, Socket), err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, errors.Join(fmt.Errorf("the daemon answers %s: %s", resp.Status, bytes.TrimSpace(text)), resp.Body.Close())
	}
	return resp, nil
}
