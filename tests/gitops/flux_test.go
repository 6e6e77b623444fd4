package gitops

import (
	"os"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	"sigs.k8s.io/yaml"
)

type healthCheckExpressions struct {
	Kind       string `json:"kind"`
	InProgress string `json:"inProgress"`
	Failed     string `json:"failed"`
	Current    string `json:"current"`
}

// fluxExpressions returns the expressions of the example by kind.
func fluxExpressions(t *testing.T) map[string]healthCheckExpressions {
	t.Helper()
	text, err := os.ReadFile("../../integrations/flux/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []healthCheckExpressions `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &kustomization); err != nil {
		t.Fatal(err)
	}
	found := map[string]healthCheckExpressions{}
	for _, expressions := range kustomization.Spec.HealthCheckExprs {
		found[expressions.Kind] = expressions
	}
	if len(found) != 2 {
		t.Fatalf("expressions for %v", found)
	}
	return found
}

// evaluate evaluates an expression in the environment of Flux (fluxcd/pkg, runtime/cel/expression.go).
func evaluate(t *testing.T, expression string, object map[string]any) (bool, error) {
	t.Helper()
	if expression == "" {
		return false, nil
	}
	env, err := cel.NewEnv(
		cel.HomogeneousAggregateLiterals(), cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(), ext.Strings(), ext.Sets(), ext.Encoders(),
	)
	if err != nil {
		t.Fatal(err)
	}
	parsed, issues := env.Parse(expression)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(parsed, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		t.Fatal(err)
	}
	value, _, err := program.Eval(object)
	if err != nil {
		return false, err
	}
	return value.Value().(bool), nil
}

// fluxStatus follows fluxcd/pkg, runtime/cel/status_evaluator.go.
func fluxStatus(t *testing.T, object map[string]any) string {
	t.Helper()
	if status, ok := object["status"].(map[string]any); ok {
		observed, ok := status["observedGeneration"]
		if ok && observed != object["metadata"].(map[string]any)["generation"] {
			return "InProgress"
		}
	}
	expressions := fluxExpressions(t)[object["kind"].(string)]
	for _, row := range []struct{ expression, status string }{
		{expressions.InProgress, "InProgress"}, {expressions.Failed, "Failed"}, {expressions.Current, "Current"},
	} {
		switch held, err := evaluate(t, row.expression, object); {
		case err != nil:
			// Flux waits, and reports the error after the timeout.
			return "Unknown"
		case held:
			return row.status
		}
	}
	return "InProgress"
}

func TestFluxStatusOfEveryFixtureIsAsDocumented(t *testing.T) {
	for name, fixture := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			if found := fluxStatus(t, fixture.object); found != fixture.flux {
				t.Errorf("%s, not %s", found, fixture.flux)
			}
		})
	}
}
