//! The fault matrix: scenario x point x result.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path, time::Duration};

use crate::{
    cell::{Cell, Fault, Mode, Outcome},
    scenarios,
};

/// All results so far.
#[derive(Default)]
pub(crate) struct Matrix {
    results: Vec<(Cell, Outcome)>,
    scenarios: BTreeMap<u32, Vec<(&'static str, Outcome)>>,
}

impl Matrix {
    pub(crate) fn enter(&mut self, cell: Cell, outcome: Outcome) {
        self.results.push((cell, outcome));
    }

    pub(crate) fn enter_scenario(&mut self, number: u32, run: &'static str, outcome: Outcome) {
        self.scenarios.entry(number).or_default().push((run, outcome));
    }

    fn played(&self) -> impl Iterator<Item = (u32, &'static str, &Outcome)> {
        self.scenarios.iter().flat_map(|(number, runs)| runs.iter().map(|(run, outcome)| (*number, *run, outcome)))
    }

    pub(crate) fn held(&self) -> bool {
        self.results.iter().all(|(_, outcome)| outcome.held()) && self.played().all(|(.., outcome)| outcome.held())
    }

    pub(crate) fn summary(&self) -> String {
        let (runs, failed) = (self.results.len(), self.results.iter().filter(|(_, outcome)| !outcome.held()).count());
        let (played, lost) = (self.played().count(), self.played().filter(|(.., outcome)| !outcome.held()).count());
        let violations: usize = self.results.iter().map(|(_, outcome)| outcome.violations.len()).sum();
        let kills: usize = self.results.iter().map(|(_, outcome)| outcome.struck).sum();
        let refused: u64 = self.results.iter().map(|(_, outcome)| outcome.refused).sum();
        let accepted: u64 = self.results.iter().map(|(_, outcome)| outcome.accepted).sum();
        let longest = self.results.iter().max_by_key(|(_, outcome)| outcome.recovery);
        let (recovery, of) =
            longest.map_or((Duration::ZERO, String::new()), |(cell, outcome)| (outcome.recovery, cell.name()));
        format!(
            "{runs} runs with faults, {failed} failed, {violations} violations; {played} scenarios, {lost} failed; {kills} times the operator was killed; \
             consumers made {accepted} calls, {refused} were refused; the longest recovery took {:.1} s ({of})",
            recovery.as_secs_f32()
        )
    }

    /// Writes `docs/fault-matrix.md`.
    pub(crate) fn write(&self) -> io::Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fault-matrix.md");
        fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        fs::write(file, self.text())
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# Fault matrix\n\nWritten by `make faults`. Each cell is a run of its own on a real Kubernetes API server and an AWS that behaves \
             like AWS: at the call in the row the operator is killed before it, killed after it was done and before the \
             answer came, the answer is lost, or the call is refused. At the end an auditor that shares no code with the \
             operator must find the promises kept, and a consumer that signed ten times a second must never have been \
             refused. A number is the time in seconds until all was well again, counted from the end of the fault. Any \
             cell runs again with `make faults ONLY='<scenario>/<call>/<fault>'`.\n\n",
        );
        let _ = writeln!(text, "**{}.**\n", self.summary());
        let cells = self.results.iter().map(|(cell, outcome)| (cell.name(), outcome));
        let played = self.played().map(|(number, run, outcome)| (scenarios::name(number, run), outcome));
        let failed: Vec<_> = cells.chain(played).filter(|(_, outcome)| !outcome.held()).collect();
        if !failed.is_empty() {
            text.push_str("## Failed\n\n");
            for (name, outcome) in failed {
                let _ = writeln!(text, "- `{name}`: {}", outcome.violations.join("; ").replace('|', "/"));
            }
            text.push('\n');
        }
        self.scenarios(&mut text);
        let mut scenarios: BTreeMap<&str, BTreeMap<String, BTreeMap<Mode, String>>> = BTreeMap::new();
        let mut weather: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        let mut seeded = Vec::new();
        for (cell, outcome) in &self.results {
            let name = cell.scenario.name();
            match (cell.seed, cell.faults.as_slice()) {
                (Some(seed), _) => seeded.push((seed, cell, outcome)),
                (None, [Fault::At(point, mode)]) => {
                    let row = scenarios.entry(name).or_default().entry(point.to_string()).or_default();
                    row.insert(*mode, mark(outcome));
                }
                (None, [Fault::Profile(kind)]) => {
                    weather.entry(kind.name).or_default().insert(name, mark(outcome));
                }
                _ => {}
            }
        }
        for (scenario, rows) in &scenarios {
            let _ = writeln!(
                text,
                "## {scenario}\n\n| call | kill-before | kill-after | lost-reply | refused |\n|---|---|---|---|---|"
            );
            for (point, modes) in rows {
                let cells = Mode::ALL.map(|mode| modes.get(&mode).map_or("", String::as_str));
                let _ = writeln!(text, "| `{point}` | {} |", cells.join(" | "));
            }
            text.push('\n');
        }
        text.push_str("## Bad weather\n\n");
        let names: Vec<&str> = crate::operation::Operation::ALL.iter().map(|scenario| scenario.name()).collect();
        let _ = writeln!(text, "| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
        for (kind, row) in &weather {
            let cells: Vec<&str> = names.iter().map(|name| row.get(name).map_or("", String::as_str)).collect();
            let _ = writeln!(text, "| `{kind}` | {} |", cells.join(" | "));
        }
        text.push_str("\n## Two or three faults at once, by seed\n\n| run | faults | result |\n|---|---|---|\n");
        seeded.sort_by_key(|(seed, ..)| *seed);
        for (_, cell, outcome) in seeded {
            let plain = Cell { seed: None, ..cell.clone() };
            let _ = writeln!(text, "| `{}` | {} | {} |", cell.name(), plain.name(), mark(outcome));
        }
        text
    }
}

impl Matrix {
    /// The table of the 38 scenarios.
    fn scenarios(&self, text: &mut String) {
        text.push_str(
            "## The 38 scenarios\n\nWhat an operator of this kind must live through, and what shows that it does: runs of \
             their own (`make faults ONLY='scenario/<number>'`), cells of the tables below, tests of pure functions.\n\n\
             | | scenario | shown by | result |\n|---|---|---|---|\n",
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
            by.extend(scenario.units.iter().map(|(file, test)| format!("`{test}` in {file}")));
            let failed = runs.iter().filter(|(_, outcome)| !outcome.held()).count()
                + cells.iter().filter(|outcome| !outcome.held()).count();
            let count = runs.len() + cells.len();
            let result = match (count, failed) {
                (0, _) => "with the unit tests".to_owned(),
                (count, 0) => format!("held, {count} runs"),
                (count, failed) => format!("**{failed} of {count} runs failed**"),
            };
            let _ = writeln!(text, "| {} | {} | {} | {result} |", scenario.number, scenario.title, by.join(", "));
        }
        text.push('\n');
    }
}

fn mark(outcome: &Outcome) -> String {
    if outcome.held() { format!("{:.1}", outcome.recovery.as_secs_f32()) } else { "**failed**".to_owned() }
}
