package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/proto/api"
)

// revocations serves GET /v2/revocations.
func (h *Handler) revocations(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	if err := h.sync(r.Context()); err != nil {
		return err
	}
	list := api.RevocationList{Revocations: []api.Revocation{}}
	for v := range h.cfg.Reader.Snapshot().Revoked() {
		list.Revocations = append(list.Revocations, renderRevocation(v))
	}
	h.json(w, r, http.StatusOK, list)
	return nil
}

// revoke serves POST /v2/revocations.
func (h *Handler) revoke(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	body, err := h.small(w, r)
	if err != nil {
		return err
	}
	v, force, err := parseRevocation(body)
	if err != nil {
		return err
	}
	asked := func() []slog.Attr {
		return []slog.Attr{slog.String("node", v.Node), slog.String("serial", v.Serial)}
	}
	exchangeOf(r).asked = asked()
	if err := h.resolveRevoked(r, &v, force); err != nil {
		return err
	}
	exchangeOf(r).asked = asked() // by its id
	v.RevokedBy = exchangeOf(r).owner
	if err := h.cfg.Authority.Revoke(r.Context(), v); err != nil {
		return err
	}
	h.cfg.Log.InfoContext(r.Context(), "certificate revoked", "revoked", v.Node, "serial", v.Serial, "by", v.RevokedBy)
	sn := h.cfg.Reader.Snapshot()
	made := sn.RevokedNode(v.Node)
	if v.Serial != "" {
		made = sn.RevokedSerial(v.Serial)
	}
	if made == nil {
		return fmt.Errorf("the revocation of %s%s is not in the record after it was made", v.Node, v.Serial)
	}
	h.json(w, r, http.StatusCreated, renderRevocation(made))
	return nil
}

// resolveRevoked finds the id of the node whose certificates are to be revoked:
// certificates name ids, so that of anything else would revoke none. With force an
// id that nobody knows is taken as it is.
func (h *Handler) resolveRevoked(r *http.Request, v *access.Revoked, force bool) error {
	if v.Node == "" {
		return nil
	}
	id, _, err := h.findMember(r, v.Node)
	if err == nil {
		v.Node = id
		return nil
	}
	if !errors.Is(err, &task.Error{Code: task.CodeNotFound}) {
		return err
	}
	if force || h.wasAdmitted(v.Node) {
		return nil
	}
	return refusal(api.CodeNotFound, "there is no such node, and certificates of none would be revoked: give its id or name as GET /v2/nodes or GET /v2/cluster have it, or force with the id in its certificate")
}

// wasAdmitted reports whether a join token was used up for a node of this id,
// which may never have come since.
func (h *Handler) wasAdmitted(id string) bool {
	for t := range h.cfg.Reader.Snapshot().Tokens() {
		if t.Node == id && !t.Withdrawn() {
			return true
		}
	}
	return false
}

// maxSerial is the longest serial number, in hexadecimal digits: RFC 5280 allows
// 20 bytes.
const maxSerial = 40

// parseSerial reads a serial number however tools print it, with colons, in upper
// case or with zeros in front, and gives the one form that certificates are
// compared in.
func parseSerial(text string) (string, bool) {
	digits := strings.ToLower(strings.ReplaceAll(text, ":", ""))
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return "", false
	}
	digits = strings.TrimLeft(digits, "0")
	return digits, digits != "" && len(digits) <= maxSerial
}

// parseRevocation reads the body of POST /v2/revocations. The node in it is as the
// caller named it.
func parseRevocation(body []byte) (v access.Revoked, force bool, err error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return v, false, f.err()
	}
	o := fieldsOf(root, f)
	v = access.Revoked{Node: o.text("node"), Serial: o.text("serial")}
	force = o.truth("force")
	switch {
	case (v.Node == "") == (v.Serial == ""):
		f.add("", "", "must name either a node or a serial number")
	case v.Serial != "":
		if v.Serial, ok = parseSerial(v.Serial); !ok {
			f.add(o.at("serial"), "", "must be a serial number above 0 in at most %d hexadecimal digits", maxSerial)
		}
	case len(v.Node) > maxKeyName:
		f.add(o.at("node"), "", "is longer than %d bytes", maxKeyName)
	}
	o.done()
	return v, force, f.err()
}

func renderRevocation(v *access.Revoked) api.Revocation {
	return api.Revocation{Node: v.Node, Serial: v.Serial, RevokedAt: v.RevokedAt, RevokedBy: v.RevokedBy}
}
