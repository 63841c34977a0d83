// Command kstatus says of each JSON object on stdin, in a line of JSON, what tools that wait for it make of it: kstatus, the library
// of Kubernetes and the fork of it by which Helm and Flux wait; and, when its argument is a health check in Lua, Argo CD, whose
// interpreter runs it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	flux "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// A verdict in the words of the tool that gives it.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// What is printed of an object.
type verdicts struct {
	Kstatus verdict  `json:"kstatus"`
	ArgoCD  *verdict `json:"argoCD,omitempty"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	var script []byte
	if len(arguments) > 0 {
		var err error
		if script, err = os.ReadFile(arguments[0]); err != nil {
			return err
		}
	}
	objects, printed := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var text json.RawMessage
		if err := objects.Decode(&text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return err
		}
		if forked, err := flux.Compute(object); err != nil {
			return err
		} else if forked.Status.String() != result.Status.String() {
			return fmt.Errorf("kstatus says %s, and its fork %s", result.Status, forked.Status)
		}
		told := verdicts{Kstatus: verdict{string(result.Status), result.Message}}
		if script != nil {
			if told.ArgoCD, err = health(string(script), object.Object); err != nil {
				return err
			}
		}
		if err := printed.Encode(told); err != nil {
			return err
		}
	}
}

// Runs a health check with the libraries that Argo CD opens: the base functions and those of tables. The object is the global `obj`.
func health(script string, object map[string]any) (*verdict, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	returned, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the health check returns %s", state.Get(-1).Type())
	}
	text := func(key string) string { return lua.LVAsString(returned.RawGetString(key)) }
	return &verdict{text("status"), text("message")}, nil
}

// A JSON value in Lua.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	}
	return lua.LNil
}
