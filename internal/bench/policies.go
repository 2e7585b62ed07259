package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
)

// What a token is checked against where there are many policies: how many are
// stored, how many of those it has, and how many rules one of them has.
const (
	storedPolicies = 10_000
	tokenPolicies  = 20
	policyRules    = 1_000
)

// oneRule is the policy of the token that the other one is compared with.
const oneRule = `path "bench-kv/*" { capabilities = ["read"] }`

// fewRules is the text of most policies: rules that are looked at beside the
// one that decides.
func fewRules(n int) string {
	return fmt.Sprintf(`
path "bench-kv/data/team%[1]d/*"   { capabilities = ["create", "read", "update", "delete"] }
path "bench-kv/metadata/team%[1]d" { capabilities = ["list"] }
path "bench-kv/+/shared/team%[1]d" { capabilities = ["read"] }
path "bench-db/creds/team%[1]d"    { capabilities = ["read"] }
`, n)
}

// manyRules is the text of the large one: rules of every kind around the path
// that is read, of which one allows it.
func manyRules() string {
	var b strings.Builder
	b.WriteString(oneRule)
	for i := 1; i < policyRules; i++ {
		path := [...]string{"bench-kv/data/x%d", "bench-kv/data/x%d/*", "bench-kv/+/x%d/+/y*", "bench-kv/data/x%d*"}[i%4]
		fmt.Fprintf(&b, "\npath %q { capabilities = [\"read\"] }", fmt.Sprintf(path, i))
	}
	return b.String()
}

// holdPolicies stores the policies and makes the two tokens, once.
func (s *subject) holdPolicies(ctx context.Context) error {
	if s.judged[1] != "" {
		return nil
	}
	err := parallel(storedPolicies, 16, func(i int) error {
		text := fewRules(i)
		switch i {
		case 0:
			text = oneRule
		case 1:
			text = manyRules()
		}
		return s.call(ctx, "PUT", fmt.Sprintf("sys/policies/acl/bench-%d", i), s.server.Root, obj{"policy": text}, nil)
	})
	if err != nil {
		return err
	}
	many := make([]string, tokenPolicies)
	for i := range many {
		many[i] = fmt.Sprintf("bench-%d", i+1)
	}
	for i, policies := range [][]string{{"bench-0"}, many} {
		var a answer
		body := obj{"policies": policies, "no_default_policy": true, "ttl": "12h", "no_parent": true}
		if err := s.call(ctx, "POST", "auth/token/create", s.server.Root, body, &a); err != nil {
			return err
		}
		s.judged[i] = a.Auth.ClientToken
	}
	return nil
}

// readJudged reads a secret with one of the two tokens.
func (s *subject) readJudged(which int) op {
	return func(ctx context.Context, _ int) error {
		_, err := s.raw(ctx, "GET", fmt.Sprintf("bench-kv/data/k%d", rand.IntN(keys)), s.judged[which], nil)
		return err
	}
}
