package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
)

// result is what a statement has answered in one database.
type result struct {
	columns  []string   // none for a statement that answers with no rows
	rows     [][]*value // nil is NULL
	more     bool       // there are more rows than were asked for
	affected int64
}

// value is a cell: as text, and as JSON.
type value struct {
	text string
	json json.RawMessage
}

func text(s string) *value {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // of a string
	}
	return &value{s, b}
}

// literal is a cell that is the same in JSON, if it is valid JSON.
func literal(s string) *value {
	if json.Valid([]byte(s)) {
		return &value{s, json.RawMessage(s)}
	}
	return text(s) // NaN, for instance
}

// printer prints results, one tenant at a time.
type printer struct {
	r       *run
	maxRows int

	mu    sync.Mutex // guards table, and the order
	table table
}

func (p *printer) print(id string, res *result) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if res.more {
		p.r.err.sayf("%s has more than %d rows; see --max-rows", id, p.maxRows)
	}
	if p.r.json {
		return p.lines(id, res)
	}
	if len(res.columns) == 0 {
		return p.table.print([]string{"TENANT", "AFFECTED"}, [][]string{{id, fmt.Sprint(res.affected)}})
	}
	var rows [][]string
	for _, row := range res.rows {
		cells := []string{id}
		for _, v := range row {
			cell := "NULL"
			if v != nil {
				cell = v.text
			}
			cells = append(cells, cell)
		}
		rows = append(rows, cells)
	}
	return p.table.print(append([]string{"TENANT"}, res.columns...), rows)
}

// lines prints a JSON object for each row, with its columns in their order.
func (p *printer) lines(id string, res *result) error {
	var b bytes.Buffer
	if len(res.columns) == 0 {
		fmt.Fprintf(&b, `{"tenant":%s,"affected":%d}`+"\n", text(id).json, res.affected)
	}
	for _, row := range res.rows {
		fmt.Fprintf(&b, `{"tenant":%s,"row":{`, text(id).json)
		seen := map[string]int{}
		for i, v := range row {
			if i > 0 {
				b.WriteByte(',')
			}
			name := res.columns[i]
			if seen[name]++; seen[name] > 1 { // an object has a name once
				name = fmt.Sprintf("%s_%d", name, seen[name])
			}
			b.Write(text(name).json)
			b.WriteByte(':')
			if v == nil {
				b.WriteString("null")
				continue
			}
			if err := json.Compact(&b, v.json); err != nil {
				return err
			}
		}
		b.WriteString("}}\n")
	}
	_, err := p.r.out.Write(b.Bytes())
	return err
}
