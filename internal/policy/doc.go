// Package policy turns the text of policies into a compiled Set and answers
// the one question of a request: may this token do this operation on this
// path, and on which conditions. It is pure: it stores nothing, knows no
// tokens and no clock.
//
// A text is parsed once into a Policy, and the policies of a token are joined
// once into a Set, which any number of tokens share. In a Set the rules with
// the same path have become one, exact paths stand in a hash table and paths
// with wildcards in a radix tree, ranked by Vault's order of priority; so a
// check costs a lookup and a walk along the path, allocates nothing, and does
// not grow with the number of rules or policies.
//
// The order of a check is Vault's:
//
//  1. the rule with exactly this path;
//  2. for LIST, the rule with the path less its trailing slash;
//  3. for LIST, the best rule with wildcards that matches the path less its
//     trailing slash;
//  4. the best rule with wildcards that matches the path.
//
// The best of two is the one whose first wildcard comes later; then the one
// that does not end in *; then the one with fewer +; then the longer; then the
// one that sorts later. We differ in two points, and only ever to say no. Where
// step 3 finds a rule and the rule that step 4 would find denies, the answer is
// no: somebody wrote that denial for just this directory. And where another
// operation than LIST comes to step 4 with a slash at the end of its path, the
// rule for the path without that slash, if there is one, has to agree: to many
// endpoints both are one path, and nobody gets out of a rule by a slash.
//
// Some endpoints know the thing that a path names by one spelling and take it in
// others: users/Alice is users/alice. There a request is judged twice, as it was
// asked and as the endpoint knows it, with the capitals of rules read as small
// letters from the name on; both must allow it (AllowAs). The rules that have
// capitals are few, and gone through one by one.
//
// A rule whose path has templates ({{identity.entity.id}}) is parsed with the
// others and left out of the Set's tables; Bind puts in the values of one
// entity and gives a Set with a small table of its own over the shared ones.
package policy
