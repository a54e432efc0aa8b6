package api

import (
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
	//lint:ignore SA1019 bcrypt is made of it, and files of before hold bcrypt
	"golang.org/x/crypto/blowfish"
)

const (
	// maxBcrypt is what bcrypt looks at of a secret, in bytes. A longer one is
	// refused rather than cut.
	maxBcrypt = 72
	// hashSlice is how long a secret's hash is worked at before a rest, as long
	// while somebody guesses. Whoever is known waits for no more than this of it,
	// even where there is one core, and all that strangers send costs half of one.
	hashSlice = 250 * time.Microsecond
	// restMost bounds the rest where others had the core meanwhile.
	restMost = 4 * hashSlice
	// roundsAtOnce go without a look at the clock; one takes some 60 µs.
	roundsAtOnce = 2

	bcryptSalt = 22 // characters
	bcryptSum  = 31
	bcryptText = "OrpheanBeholderScryDoubt"
)

// bcryptEncoding is bcrypt's own base64.
var bcryptEncoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// matchesBcrypt is bcrypt.CompareHashAndPassword in slices, with a rest behind each,
// which is told how long that took. That one keeps a core for 60 ms: requests of known
// keys had to wait for as long as the scheduler lets a goroutine run, which made their
// p99 four times what it is.
func matchesBcrypt(hash, secret string, rest func(worked time.Duration)) bool {
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || len(secret) > maxBcrypt {
		return false
	}
	sums := hash[strings.LastIndexByte(hash, '$')+1:]
	if len(sums) != bcryptSalt+bcryptSum {
		return false
	}
	salt, err := bcryptEncoding.DecodeString(sums[:bcryptSalt])
	if err != nil {
		return false
	}
	key := append([]byte(secret), 0)
	c, err := blowfish.NewSaltedCipher(key, salt)
	if err != nil {
		return false
	}
	began := time.Now()
	for round := range 1 << cost {
		blowfish.ExpandKey(key, c)
		blowfish.ExpandKey(salt, c)
		if round%roundsAtOnce != 0 {
			continue
		}
		if took := time.Since(began); took >= hashSlice {
			rest(took)
			began = time.Now()
		}
	}
	sum := []byte(bcryptText)
	for block := 0; block < len(sum); block += blowfish.BlockSize {
		for range 64 {
			c.Encrypt(sum[block:], sum[block:])
		}
	}
	// The last byte is left out, as in the original.
	got := bcryptEncoding.AppendEncode(nil, sum[:len(sum)-1])
	return subtle.ConstantTimeCompare(got, []byte(sums[bcryptSalt:])) == 1
}
