package gitops

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write argocd-cm.yaml")

const (
	argocd    = "../../integrations/argocd"
	configMap = argocd + "/argocd-cm.yaml"
)

// decode converts an object as Argo CD does (util/lua/lua.go, decodeValue).
func decode(l *lua.LState, value any) lua.LValue {
	switch converted := value.(type) {
	case bool:
		return lua.LBool(converted)
	case float64:
		return lua.LNumber(converted)
	case int64:
		return lua.LNumber(converted)
	case string:
		return lua.LString(converted)
	case []any:
		list := l.CreateTable(len(converted), 0)
		for _, item := range converted {
			list.Append(decode(l, item))
		}
		return list
	case map[string]any:
		table := l.CreateTable(0, len(converted))
		for key, item := range converted {
			table.RawSetH(lua.LString(key), decode(l, item))
		}
		return table
	default:
		return lua.LNil
	}
}

// safeOs is what Argo CD opens of the library os (util/lua/oslib_safe.go).
func safeOs(l *lua.LState) int {
	l.Push(l.SetFuncs(l.NewTable(), map[string]lua.LGFunction{
		"date": func(l *lua.LState) int {
			if format := l.CheckString(1); format != "!%Y-%m-%dT%H:%M:%SZ" {
				l.RaiseError("unexpected format %s", format)
			}
			l.Push(lua.LString(time.Now().UTC().Format(time.RFC3339)))
			return 1
		},
	}))
	return 1
}

// run executes a script in the sandbox of Argo CD (util/lua/lua.go, runLuaWithResourceActionParameters). Scripts of argocd-cm run
// without openLibs: there are no string, math, io and debug libraries.
func run(t *testing.T, script string, object map[string]any) []byte {
	t.Helper()
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(library.open), Protect: true}, lua.LString(library.name)); err != nil {
			t.Fatal(err)
		}
	}
	l.PreloadModule(lua.OsLibName, safeOs)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l.SetContext(ctx)
	l.SetGlobal("actionParams", l.NewTable())
	l.SetGlobal("obj", decode(l, object))
	if err := l.DoString(script); err != nil {
		t.Fatal(err)
	}
	returned := l.Get(-1)
	if returned.Type() != lua.LTTable {
		t.Fatalf("the script returned %s, not a table", returned.Type())
	}
	text, err := luajson.Encode(returned)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// clean turns an empty list back into an empty object, as Lua has one type for both (util/lua/lua.go, cleanReturnedObj).
func clean(returned, given any) any {
	switch old := given.(type) {
	case map[string]any:
		if list, ok := returned.([]any); ok && len(list) == 0 {
			return map[string]any{}
		}
		if object, ok := returned.(map[string]any); ok {
			for key, value := range object {
				object[key] = clean(value, old[key])
			}
		}
	case []any:
		if list, ok := returned.([]any); ok {
			for i := range list {
				if i < len(old) {
					list[i] = clean(list[i], old[i])
				}
			}
		}
	}
	return returned
}

// mergePatch is what Argo CD sends to the API server after an action.
func mergePatch(from, to map[string]any) map[string]any {
	patch := map[string]any{}
	for key, value := range to {
		nested, ok := value.(map[string]any)
		previous, had := from[key].(map[string]any)
		switch {
		case ok && had:
			if below := mergePatch(previous, nested); len(below) > 0 {
				patch[key] = below
			}
		case !reflect.DeepEqual(from[key], value):
			patch[key] = value
		}
	}
	for key := range from {
		if _, kept := to[key]; !kept {
			patch[key] = nil
		}
	}
	return patch
}

func script(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(argocd, "awsdeploy.dev", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

type health struct{ Status, Message string }

func argoHealth(t *testing.T, object map[string]any) health {
	t.Helper()
	var found health
	if err := json.Unmarshal(run(t, script(t, object["kind"].(string)+"/health.lua"), object), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestHealthOfEveryFixtureIsAsDocumented(t *testing.T) {
	for name, fixture := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			found := argoHealth(t, fixture.object)
			if found.Status != fixture.health || !strings.Contains(found.Message, fixture.message) {
				t.Errorf("%+v, not %s with %q", found, fixture.health, fixture.message)
			}
		})
	}
}

func TestActionsAreEnabledWhereTheyHaveAnEffect(t *testing.T) {
	for name, want := range map[string]string{
		"user-ready":           "pause revoke rotate",
		"user-paused":          "resume revoke",
		"user-revoked":         "pause restore",
		"user-console-only":    "pause revoke",
		"user-not-looked-at":   "pause revoke rotate",
		"user-revoked-elapsed": "pause restore",
	} {
		t.Run(name, func(t *testing.T) {
			var actions map[string]struct{ Disabled bool }
			text := run(t, script(t, "AwsDeployUser/actions/discovery.lua"), fixtures(t)[name].object)
			if err := json.Unmarshal(text, &actions); err != nil {
				t.Fatal(err)
			}
			if len(actions) != 5 {
				t.Errorf("actions: %v", actions)
			}
			var enabled []string
			for action, state := range actions {
				script(t, "AwsDeployUser/actions/"+action+"/action.lua")
				if !state.Disabled {
					enabled = append(enabled, action)
				}
			}
			sort.Strings(enabled)
			if found := strings.Join(enabled, " "); found != want {
				t.Errorf("enabled: %s, not %s", found, want)
			}
		})
	}
}

func TestActionsChangeOneFieldOnly(t *testing.T) {
	annotation := func(key string, value any) map[string]any {
		return map[string]any{"metadata": map[string]any{"annotations": map[string]any{"awsdeploy.dev/" + key: value}}}
	}
	credentials := func(value string) map[string]any { return map[string]any{"spec": map[string]any{"credentials": value}} }
	for _, row := range []struct {
		action, fixture string
		patch           map[string]any
	}{
		{"rotate", "user-ready", annotation("rotate", "now")},
		{"rotate", "user-not-looked-at", annotation("rotate", "now")},
		{"revoke", "user-ready", credentials("Revoked")},
		{"restore", "user-revoked", credentials("Active")},
		{"pause", "user-ready", annotation("paused", "true")},
		{"pause", "user-not-looked-at", annotation("paused", "true")},
		{"resume", "user-paused", annotation("paused", nil)},
		{"resume", "user-not-looked-at", map[string]any{}},
	} {
		t.Run(row.action+" "+row.fixture, func(t *testing.T) {
			object := fixtures(t)[row.fixture].object
			var changed map[string]any
			if err := json.Unmarshal(run(t, script(t, "AwsDeployUser/actions/"+row.action+"/action.lua"), object), &changed); err != nil {
				t.Fatal(err)
			}
			patch := mergePatch(object, clean(changed, object).(map[string]any))
			if row.action == "rotate" {
				annotations := patch["metadata"].(map[string]any)["annotations"].(map[string]any)
				at, err := time.Parse(time.RFC3339, annotations["awsdeploy.dev/rotate"].(string))
				if err != nil || time.Since(at).Abs() > time.Minute {
					t.Errorf("%v: %v", annotations, err)
				}
				annotations["awsdeploy.dev/rotate"] = "now"
			}
			if !reflect.DeepEqual(patch, row.patch) {
				t.Errorf("patch: %v, not %v", patch, row.patch)
			}
		})
	}
}

// argocd-cm.yaml contains the scripts; Argo CD reads nothing else.
func TestConfigMapContainsTheScripts(t *testing.T) {
	data := map[string]string{}
	for _, kind := range []string{"AwsDeployUser", "AwsDeployUserClass"} {
		data["resource.customizations.health.awsdeploy.dev_"+kind] = script(t, kind+"/health.lua")
	}
	type definition struct {
		Name   string `json:"name"`
		Script string `json:"action.lua"`
	}
	var actions struct {
		Discovery   string       `json:"discovery.lua"`
		Definitions []definition `json:"definitions"`
	}
	actions.Discovery = script(t, "AwsDeployUser/actions/discovery.lua")
	for _, name := range []string{"rotate", "revoke", "restore", "pause", "resume"} {
		actions.Definitions = append(actions.Definitions, definition{name, script(t, "AwsDeployUser/actions/"+name+"/action.lua")})
	}
	text, err := yaml.Marshal(actions)
	if err != nil {
		t.Fatal(err)
	}
	data["resource.customizations.actions.awsdeploy.dev_AwsDeployUser"] = string(text)
	text, err = yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]any{
			"name": "argocd-cm", "namespace": "argocd", "labels": map[string]any{"app.kubernetes.io/part-of": "argocd"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "# Health and actions for Argo CD, made from the scripts beside this file: go test ./tests/gitops -update\n" + string(text)
	if *update {
		if err := os.WriteFile(configMap, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := os.ReadFile(configMap)
	if err != nil || string(found) != want {
		t.Errorf("%s is out of date; run: cd tests/gitops && go test -run ConfigMap -update (%v)", configMap, err)
	}
}
