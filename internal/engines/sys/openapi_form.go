package sys

import (
	"github.com/leasehold/leasehold/internal/wire"
)

// The types below are OpenAPI 3.0's, as far as the document needs them, with
// Vault's extensions.

type apiDoc struct {
	OpenAPI string             `json:"openapi"`
	Info    apiInfo            `json:"info"`
	Paths   map[string]apiPath `json:"paths"`
	Comp    apiComponents      `json:"components"`
}

type apiInfo struct {
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Version     string     `json:"version"`
	License     apiLicense `json:"license"`
}

type apiLicense struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type apiComponents struct {
	Schemas map[string]*apiSchema `json:"schemas"`
}

type apiPath struct {
	Parameters []apiParameter `json:"parameters,omitempty"`
	Get        *apiOperation  `json:"get,omitempty"`
	Post       *apiOperation  `json:"post,omitempty"`
	Patch      *apiOperation  `json:"patch,omitempty"`
	Delete     *apiOperation  `json:"delete,omitempty"`
	Unauth     bool           `json:"x-vault-unauthenticated,omitempty"`
	Sudo       bool           `json:"x-vault-sudo,omitempty"`
	Create     bool           `json:"x-vault-createSupported,omitempty"`
}

type apiOperation struct {
	Summary     string                 `json:"summary,omitempty"`
	ID          string                 `json:"operationId"`
	Tags        []string               `json:"tags"`
	Parameters  []apiParameter         `json:"parameters,omitempty"`
	RequestBody *apiBody               `json:"requestBody,omitempty"`
	Responses   map[string]apiResponse `json:"responses"`
}

type apiParameter struct {
	Name        string     `json:"name"`
	In          string     `json:"in"`
	Description string     `json:"description,omitempty"`
	Required    bool       `json:"required,omitempty"`
	Schema      *apiSchema `json:"schema"`
}

type apiBody struct {
	Required bool                `json:"required,omitempty"`
	Content  map[string]apiMedia `json:"content"`
}

type apiMedia struct {
	Schema *apiSchema `json:"schema"`
}

type apiResponse struct {
	Description string              `json:"description"`
	Content     map[string]apiMedia `json:"content,omitempty"`
}

type apiSchema struct {
	Ref         string                `json:"$ref,omitempty"`
	Type        string                `json:"type,omitempty"`
	Description string                `json:"description,omitempty"`
	Format      string                `json:"format,omitempty"`
	Nullable    bool                  `json:"nullable,omitempty"`
	Enum        []string              `json:"enum,omitempty"`
	Default     string                `json:"default,omitempty"`
	Items       *apiSchema            `json:"items,omitempty"`
	Properties  map[string]*apiSchema `json:"properties,omitempty"`
	Additional  *apiSchema            `json:"additionalProperties,omitempty"`
}

var apiString = &apiSchema{Type: "string"}

// asked describes what a request may hold, answered what an answer holds: a
// duration is taken in many forms and answered in seconds.
func asked(s *wire.Shape, doc string) *apiSchema    { return schemaOf(s, doc, false) }
func answered(s *wire.Shape, doc string) *apiSchema { return schemaOf(s, doc, true) }

func schemaOf(s *wire.Shape, doc string, answer bool) *apiSchema {
	out := &apiSchema{Type: s.Type, Description: doc, Format: string(s.Format)}
	switch {
	case s.Format == wire.Duration && answer:
		out.Type, out.Format = "integer", "seconds"
	case s.Secret && s.Type == "string":
		out.Format = "password"
	}
	// Without a type null is among the values already.
	out.Nullable = answer && s.Null && out.Type != ""
	if s.Items != nil {
		out.Items = schemaOf(s.Items, "", answer)
	}
	if s.Values != nil {
		out.Additional = schemaOf(s.Values, "", answer)
	}
	if len(s.Fields) > 0 {
		out.Properties = make(map[string]*apiSchema, len(s.Fields))
		for _, f := range s.Fields {
			out.Properties[f.Name] = schemaOf(f.Shape, f.Doc, answer)
		}
	}
	return out
}
