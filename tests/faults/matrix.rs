//! The fault matrix: operation x fault point x result.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cell::{Cell, Fault, FaultMode, Outcome},
    scenarios,
};

#[derive(Default)]
pub(crate) struct Matrix {
    results: Vec<(Cell, Outcome)>,
    scenarios: BTreeMap<u32, Vec<(&'static str, Outcome)>>,
}

impl Matrix {
    pub(crate) fn record(&mut self, cell: Cell, outcome: Outcome) {
        self.results.push((cell, outcome));
    }

    pub(crate) fn record_scenario(&mut self, number: u32, run: &'static str, outcome: Outcome) {
        self.scenarios.entry(number).or_default().push((run, outcome));
    }

    fn scenario_outcomes(&self) -> impl Iterator<Item = (u32, &'static str, &Outcome)> {
        self.scenarios.iter().flat_map(|(number, runs)| runs.iter().map(|(run, outcome)| (*number, *run, outcome)))
    }

    pub(crate) fn passed(&self) -> bool {
        self.results.iter().all(|(_, outcome)| outcome.passed())
            && self.scenario_outcomes().all(|(.., outcome)| outcome.passed())
    }

    pub(crate) fn summary(&self) -> String {
        let (runs, failed) = (self.results.len(), self.results.iter().filter(|(_, outcome)| !outcome.passed()).count());
        let (scenarios, failed_scenarios) = (
            self.scenario_outcomes().count(),
            self.scenario_outcomes().filter(|(.., outcome)| !outcome.passed()).count(),
        );
        let violations: usize = self.results.iter().map(|(_, outcome)| outcome.violations.len()).sum();
        let kills: usize = self.results.iter().map(|(_, outcome)| outcome.kills).sum();
        let refused: u64 = self.results.iter().map(|(_, outcome)| outcome.refused).sum();
        let accepted: u64 = self.results.iter().map(|(_, outcome)| outcome.accepted).sum();
        let longest = self.results.iter().max_by_key(|(_, outcome)| outcome.recovery);
        let (recovery, of) =
            longest.map_or((Duration::ZERO, String::new()), |(cell, outcome)| (outcome.recovery, cell.name()));
        format!(
            "{runs} runs with faults, {failed} failed, {violations} violations; {scenarios} scenarios, {failed_scenarios} failed; the operator was killed {kills} times; \
             consumers made {accepted} calls, {refused} were refused; the longest recovery took {:.1} s ({of})",
            recovery.as_secs_f32()
        )
    }

    /// Writes the matrix to the file that `FAULT_MATRIX` names, by default into the target directory.
    pub(crate) fn write(&self) -> io::Result<()> {
        let file = std::env::var_os("FAULT_MATRIX")
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault-matrix.md"), PathBuf::from);
        fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        fs::write(file, self.text())
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# Fault matrix\n\nWritten by `make faults`. Each cell is a separate run on a real Kubernetes API server and an emulated \
             AWS: at the call in the row the operator is killed before the call, killed after its commit and before the \
             response, the response is lost, or the call is refused. At the end an auditor that shares no code with the \
             operator checks every invariant, and a consumer that signs ten times per second must never have been \
             refused. A number is the recovery time in seconds, counted from the end of the fault. Repeat a cell with \
             `make faults ONLY='<operation>/<call>/<fault>'`.\n\n",
        );
        let _ = writeln!(text, "**{}.**\n", self.summary());
        let cells = self.results.iter().map(|(cell, outcome)| (cell.name(), outcome));
        let scenario_outcomes =
            self.scenario_outcomes().map(|(number, run, outcome)| (scenarios::name(number, run), outcome));
        let failed: Vec<_> = cells.chain(scenario_outcomes).filter(|(_, outcome)| !outcome.passed()).collect();
        if !failed.is_empty() {
            text.push_str("## Failed\n\n");
            for (name, outcome) in failed {
                let _ = writeln!(text, "- `{name}`: {}", outcome.violations.join("; ").replace('|', "/"));
            }
            text.push('\n');
        }
        self.scenarios(&mut text);
        let mut operations: BTreeMap<&str, BTreeMap<String, BTreeMap<FaultMode, String>>> = BTreeMap::new();
        let mut profiles: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        let mut seeded = Vec::new();
        for (cell, outcome) in &self.results {
            let name = cell.operation.name();
            match (cell.seed, cell.faults.as_slice()) {
                (Some(seed), _) => seeded.push((seed, cell, outcome)),
                (None, [Fault::At(point, mode)]) => {
                    let row = operations.entry(name).or_default().entry(point.to_string()).or_default();
                    row.insert(*mode, format_outcome(outcome));
                }
                (None, [Fault::Profile(kind)]) => {
                    profiles.entry(kind.name).or_default().insert(name, format_outcome(outcome));
                }
                _ => {}
            }
        }
        for (operation, rows) in &operations {
            let _ = writeln!(
                text,
                "## {operation}\n\n| call | kill-before | kill-after | lost-reply | refused |\n|---|---|---|---|---|"
            );
            for (point, modes) in rows {
                let cells = FaultMode::ALL.map(|mode| modes.get(&mode).map_or("", String::as_str));
                let _ = writeln!(text, "| `{point}` | {} |", cells.join(" | "));
            }
            text.push('\n');
        }
        text.push_str("## Fault profiles\n\n");
        let names: Vec<&str> = crate::operation::Operation::ALL.iter().map(|operation| operation.name()).collect();
        let _ = writeln!(text, "| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
        for (kind, row) in &profiles {
            let cells: Vec<&str> = names.iter().map(|name| row.get(name).map_or("", String::as_str)).collect();
            let _ = writeln!(text, "| `{kind}` | {} |", cells.join(" | "));
        }
        text.push_str("\n## Two or three faults at once, by seed\n\n| run | faults | result |\n|---|---|---|\n");
        seeded.sort_by_key(|(seed, ..)| *seed);
        for (_, cell, outcome) in seeded {
            let plain = Cell { seed: None, ..cell.clone() };
            let _ = writeln!(text, "| `{}` | {} | {} |", cell.name(), plain.name(), format_outcome(outcome));
        }
        text
    }
}

impl Matrix {
    fn scenarios(&self, text: &mut String) {
        text.push_str(
            "## The 38 scenarios\n\nScenarios that an operator of this kind must survive, and the tests that prove it: separate runs \
             (`make faults ONLY='scenario/<number>'`), cells of the tables below, unit tests.\n\n\
             | | scenario | proved by | result |\n|---|---|---|---|\n",
        );
        for scenario in scenarios::ALL {
            let runs = self.scenarios.get(&scenario.number).map(Vec::as_slice).unwrap_or_default();
            let cells: Vec<&Outcome> = self
                .results
                .iter()
                .filter(|(cell, _)| scenario.cells.iter().any(|part| cell.name().contains(part)))
                .map(|(_, outcome)| outcome)
                .collect();
            let mut by: Vec<String> = runs.iter().map(|(run, _)| format!("`{run}`")).collect();
            by.extend(scenario.cells.iter().map(|part| format!("cells `{part}`")));
            by.extend(scenario.unit_tests.iter().map(|test| format!("`{test}`")));
            let failed = runs.iter().filter(|(_, outcome)| !outcome.passed()).count()
                + cells.iter().filter(|outcome| !outcome.passed()).count();
            let count = runs.len() + cells.len();
            let result = match (count, failed) {
                (0, _) => "by unit tests".to_owned(),
                (count, 0) => format!("passed, {count} runs"),
                (count, failed) => format!("**{failed} of {count} runs failed**"),
            };
            let _ = writeln!(text, "| {} | {} | {} | {result} |", scenario.number, scenario.title, by.join(", "));
        }
        text.push('\n');
    }
}

fn format_outcome(outcome: &Outcome) -> String {
    if outcome.passed() { format!("{:.1}", outcome.recovery.as_secs_f32()) } else { "**failed**".to_owned() }
}
