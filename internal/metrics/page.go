// Package metrics writes the server's figures as Prometheus reads them.
//
// Nothing is registered anywhere. Whoever is asked fills a Page from counters
// and stores, and writes it out; a figure that nobody asks for costs nothing.
// Only what is too frequent to be asked for later is counted as it happens:
// see Durations.
package metrics

import (
	"strconv"
	"strings"
)

// Kind says how the values of a family behave.
type Kind string

// The kinds, in Prometheus's words.
const (
	Gauge     Kind = "gauge"     // goes up and down
	Counter   Kind = "counter"   // only goes up, until the process ends
	Summary   Kind = "summary"   // a count and a sum
	Histogram Kind = "histogram" // a count and a sum, and how many were how large
)

// Label tells the samples of a family apart. A value is never a secret: what
// is scraped is kept for long and seen by many.
type Label struct{ Name, Value string }

// Family is all samples of one name.
type Family struct {
	Name, Help string
	Dotted     string // the name where words are parted by dots; "" if nobody gave one
	Kind       Kind
	Samples    []Sample
}

// Sample is one value, or one count with its sum.
type Sample struct {
	Labels  []Label
	Value   float64 // of a gauge or counter; the sum of the others
	Count   uint64  // of a summary or histogram
	buckets []uint64
}

// Page is what a scrape answers. The zero Page is empty.
type Page struct {
	families []*Family
	byName   map[string]*Family
	dotted   map[string]string
}

// Families are in the order in which they were first added.
func (p *Page) Families() []*Family {
	for _, f := range p.families {
		f.Dotted = p.dotted[f.Name]
	}
	return p.families
}

// Dotted says how a name is written where words are parted by dots: the
// underscores of a Prometheus name do not tell which of them part words.
func (p *Page) Dotted(name, dotted string) {
	if p.dotted == nil {
		p.dotted = map[string]string{}
	}
	p.dotted[name] = dotted
}

// Gauge adds the present value of something.
func (p *Page) Gauge(name, help string, v float64, labels ...Label) {
	p.add(name, help, Gauge, Sample{Labels: labels, Value: v})
}

// Counter adds what only grows: how often something has happened, say. Its
// name ends in _total, unless it is Vault's.
func (p *Page) Counter(name, help string, n float64, labels ...Label) {
	p.add(name, help, Counter, Sample{Labels: labels, Value: n})
}

// Summary adds how often something has happened and what it came to.
func (p *Page) Summary(name, help string, n uint64, sum float64, labels ...Label) {
	p.add(name, help, Summary, Sample{Labels: labels, Value: sum, Count: n})
}

// Durations adds how long something took, in seconds.
func (p *Page) Durations(name, help string, t Tally, labels ...Label) {
	p.add(name, help, Histogram, Sample{Labels: labels, Value: t.Sum().Seconds(), Count: t.Count(), buckets: t.buckets[:]})
}

func (p *Page) add(name, help string, kind Kind, s Sample) {
	f := p.byName[name]
	if f == nil {
		f = &Family{Name: name, Help: help, Kind: kind}
		if p.byName == nil {
			p.byName = map[string]*Family{}
		}
		p.byName[name] = f
		p.families = append(p.families, f)
	}
	f.Samples = append(f.Samples, s)
}

// ContentType is that of AppendText's output.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

var (
	inHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	inLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// AppendText appends the page in Prometheus's text format.
func (p *Page) AppendText(b []byte) []byte {
	for _, f := range p.families {
		b = append(b, "# HELP "+f.Name+" "+inHelp.Replace(f.Help)+"\n# TYPE "+f.Name+" "+string(f.Kind)+"\n"...)
		for _, s := range f.Samples {
			b = f.appendSample(b, s)
		}
	}
	return b
}

func (f *Family) appendSample(b []byte, s Sample) []byte {
	switch f.Kind {
	case Histogram:
		sum := uint64(0)
		for i, n := range s.buckets {
			sum += n
			b = appendLine(b, f.Name+"_bucket", s.Labels, Label{"le", bound(i)}, float64(sum))
		}
		fallthrough
	case Summary:
		b = appendLine(b, f.Name+"_sum", s.Labels, Label{}, s.Value)
		return appendLine(b, f.Name+"_count", s.Labels, Label{}, float64(s.Count))
	}
	return appendLine(b, f.Name, s.Labels, Label{}, s.Value)
}

func appendLine(b []byte, name string, labels []Label, more Label, v float64) []byte {
	b = append(b, name...)
	sep := byte('{')
	for i := range len(labels) + 1 {
		l := more
		if i < len(labels) {
			l = labels[i]
		}
		if l.Name == "" {
			continue
		}
		b = append(b, sep)
		b = append(b, l.Name+`="`+inLabel.Replace(l.Value)+`"`...)
		sep = ','
	}
	if sep == ',' {
		b = append(b, '}')
	}
	b = append(b, ' ')
	b = strconv.AppendFloat(b, v, 'g', -1, 64)
	return append(b, '\n')
}
