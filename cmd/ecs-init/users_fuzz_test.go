package main

import (
	"os"
	"path/filepath"
	"testing"

	"ecs/internal/initwire"
)

// FuzzUsers resolves a user in files that an image brought.
func FuzzUsers(f *testing.F) {
	f.Add("app:staff", "extra", []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"), []byte("staff:x:50:app\nextra:x:51:\n"))
	f.Add("1000", "", []byte("a:b:c\n::::\n"), []byte("\xff:x:-1:\n"))
	f.Add("", "99999999999", []byte(nil), []byte("x"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, spec, further string, passwd, group []byte) {
		users, groups := filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
		if os.WriteFile(users, passwd, 0o600) != nil || os.WriteFile(groups, group, 0o600) != nil {
			t.Fatal("the files can't be written")
		}
		who, err := resolve(spec, []string{further}, users, groups)
		if err != nil {
			return
		}
		for _, id := range append([]int{who.uid, who.gid}, who.groups...) {
			if id < 0 || id > maxID || id == initwire.ReservedID {
				t.Errorf("%q gives the id %d", spec, id)
			}
		}
	})
}
