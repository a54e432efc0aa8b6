package taskwire

import (
	"bytes"
	"slices"

	"ecs/internal/access"
	ecsv1 "ecs/proto/ecs/v1"
)

// FromKey gives the message of an API key.
func FromKey(k *access.Key) *ecsv1.APIKey {
	if k == nil {
		return nil
	}
	return &ecsv1.APIKey{
		Id: k.ID, Name: k.Name, Role: string(k.Role), Hash: k.Hash,
		Rate: int64(k.Limits.Rate), Concurrency: int64(k.Limits.Concurrency), Quota: int64(k.Limits.Quota),
		CreatedAt: FromTime(k.CreatedAt), CreatedBy: k.CreatedBy,
		RevokedAt: FromTime(k.RevokedAt), RevokedBy: k.RevokedBy,
	}
}

// ToKey gives the API key of a message.
func ToKey(m *ecsv1.APIKey) *access.Key {
	if m == nil {
		return nil
	}
	return &access.Key{
		ID: m.GetId(), Name: m.GetName(), Role: access.Role(m.GetRole()), Hash: m.GetHash(),
		Limits:    access.Limits{Rate: int(m.GetRate()), Concurrency: int(m.GetConcurrency()), Quota: int(m.GetQuota())},
		CreatedAt: ToTime(m.GetCreatedAt()), CreatedBy: m.GetCreatedBy(),
		RevokedAt: ToTime(m.GetRevokedAt()), RevokedBy: m.GetRevokedBy(),
	}
}

// FromJoinToken gives the message of a join token.
func FromJoinToken(t *access.Token) *ecsv1.JoinToken {
	if t == nil {
		return nil
	}
	return &ecsv1.JoinToken{
		Hash: fromSum(t.Hash), Role: t.Role, CreatedAt: FromTime(t.CreatedAt), CreatedBy: t.CreatedBy,
		ExpiresAt: FromTime(t.ExpiresAt), SpentAt: FromTime(t.SpentAt), Node: t.Node, Request: fromSum(t.Request),
	}
}

// ToJoinToken gives the join token of a message.
func ToJoinToken(m *ecsv1.JoinToken) *access.Token {
	if m == nil {
		return nil
	}
	return &access.Token{
		Hash: ToSum(m.GetHash()), Role: m.GetRole(), CreatedAt: ToTime(m.GetCreatedAt()), CreatedBy: m.GetCreatedBy(),
		ExpiresAt: ToTime(m.GetExpiresAt()), SpentAt: ToTime(m.GetSpentAt()), Node: m.GetNode(), Request: ToSum(m.GetRequest()),
	}
}

// FromRevoked gives the message of a revoked certificate.
func FromRevoked(r *access.Revoked) *ecsv1.RevokedCertificate {
	if r == nil {
		return nil
	}
	return &ecsv1.RevokedCertificate{Serial: r.Serial, Node: r.Node, RevokedAt: FromTime(r.RevokedAt),
		RevokedBy: r.RevokedBy, ExpiresAt: FromTime(r.ExpiresAt)}
}

// ToRevoked gives the revoked certificate of a message.
func ToRevoked(m *ecsv1.RevokedCertificate) *access.Revoked {
	if m == nil {
		return nil
	}
	return &access.Revoked{Serial: m.GetSerial(), Node: m.GetNode(), RevokedAt: ToTime(m.GetRevokedAt()),
		RevokedBy: m.GetRevokedBy(), ExpiresAt: ToTime(m.GetExpiresAt())}
}

// ToSum gives a SHA-256 of its bytes; all zero when they are none.
func ToSum(b []byte) (sum [32]byte) {
	if len(b) == len(sum) {
		copy(sum[:], b)
	}
	return sum
}

// fromSum gives the bytes of a SHA-256, nil for all zero.
func fromSum(sum [32]byte) []byte {
	if bytes.Equal(sum[:], make([]byte, len(sum))) {
		return nil
	}
	return slices.Clone(sum[:])
}
