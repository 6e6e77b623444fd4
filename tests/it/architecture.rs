//! Rules of the code base: import layers, generated files, names and vocabulary.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use awsdeploy::{
    api::Reason,
    operator::{iam_policy::PolicyDocument, reference::Page},
};
use awsdeploy_testkit::{chart::Chart, files, tools::Tools};
use serde_json::json;
use strum::VariantArray;

/// Folder of `src` and what its files must not import: the inverse of the table in `src/lib.rs`.
const FORBIDDEN_IMPORTS: &[(&str, &[&str])] = &[
    ("api", &["crate::domain", "crate::aws", "crate::cluster", "crate::reconcile", "crate::operator", "aws_", "tokio"]),
    (
        "domain",
        &[
            "crate::aws",
            "crate::cluster",
            "crate::reconcile",
            "crate::operator",
            "aws_",
            "kube::",
            "k8s_openapi",
            "tokio",
            "async ",
            "Timestamp::now",
        ],
    ),
    ("aws", &["crate::cluster", "crate::reconcile", "crate::operator", "kube::", "k8s_openapi"]),
    ("cluster", &["crate::aws", "crate::reconcile", "crate::operator", "aws_sdk", "aws_config"]),
    ("reconcile", &["crate::operator", "aws_sdk", "aws_config"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Sources without their unit tests, which may import what their fakes need.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let is_test = |path: &PathBuf| {
        let below = path.strip_prefix(folder).expect("a path below the folder");
        below.iter().any(|part| Path::new(part).file_stem().is_some_and(|stem| stem == "tests"))
    };
    files::with_extensions(folder, &["rs"]).expect("a folder").into_iter().filter(|path| !is_test(path)).collect()
}

fn code_files(folder: &str) -> Vec<PathBuf> {
    files::with_extensions(&root().join(folder), &["rs", "py"]).expect("a folder")
}

/// Cargo refuses a workspace with a missing member, so the image build would fail.
pub(crate) async fn image_build_context_includes_every_workspace_member() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect("a file");
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    let members: Vec<String> = serde_json::from_str(members).expect("a list on one line");
    assert!(!members.is_empty());
    let sent = read(".dockerignore");
    for member in members {
        assert!(sent.lines().any(|line| line == format!("!{member}")), ".dockerignore excludes {member}");
    }
}

pub(crate) async fn imports_follow_the_layers() {
    let mut violations = Vec::new();
    for (folder, forbidden) in FORBIDDEN_IMPORTS {
        for file in rust_files(&root().join("src").join(folder)) {
            let text = fs::read_to_string(&file).expect("a file");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (number, line) in code.enumerate() {
                for name in *forbidden {
                    // Whole words only: `aws_` means a crate, not the end of an identifier.
                    let found = line
                        .match_indices(name)
                        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.'));
                    if found && (line.contains("use ") || line.contains("::") || *name == "async ") {
                        violations.push(format!(
                            "{}:{}: {name}: {}",
                            file.strip_prefix(root()).unwrap_or(&file).display(),
                            number + 1,
                            line.trim()
                        ));
                    }
                }
            }
        }
    }
    assert!(violations.is_empty(), "imports against the layers of src/lib.rs:\n{}", violations.join("\n"));
}

/// Chart and binary are edited separately; without this test users would find the pod that cannot parse its arguments.
pub(crate) async fn operator_accepts_the_chart_arguments() {
    let tools = Tools::locate().await.expect("the tools");
    let files = temp_dir();
    let chart = Chart::new(&tools, &files, "x", "x").values(json!({
        "watchNamespaces": ["a", "b"], "settings": {"resync": "5m", "verifySuccesses": 0, "logFormat": "json"},
    }));
    let objects = chart.template().await.expect("the chart is rendered");
    let deployment = objects
        .iter()
        .find(|object| object.types.as_ref().is_some_and(|types| types.kind == "Deployment"))
        .expect("a Deployment");
    let arguments: Vec<String> =
        serde_json::from_value(deployment.data["spec"]["template"]["spec"]["containers"][0]["args"].clone())
            .expect("arguments");
    assert!(arguments.len() > 5, "{arguments:?}");
    // `crds` exits at once, and only after all other arguments were parsed.
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_aws-deploy-user-operator"))
        .args(&arguments)
        .arg("crds")
        .output()
        .expect("the operator runs");
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    let _ = fs::remove_dir_all(files);
}

fn temp_dir() -> PathBuf {
    let files = std::env::temp_dir().join(format!("awsdeploy-architecture-{}", std::process::id()));
    fs::create_dir_all(&files).expect("a directory");
    files
}

pub(crate) async fn generated_files_are_up_to_date() {
    for (plural, wanted) in awsdeploy::api::crds_yaml().expect("the CRDs are written") {
        let found =
            fs::read_to_string(root().join(format!("crds/awsdeploy.dev_{plural}.yaml"))).expect("crds/ is there");
        assert!(found == wanted, "crds/ is out of date; run make generate");
    }
    for page in Page::ALL {
        let name = page.name();
        let wanted = page.markdown().expect("the page renders");
        let found =
            fs::read_to_string(root().join(format!("docs/reference/{name}.md"))).expect("docs/reference is there");
        assert!(found == wanted, "docs/reference/{name}.md does not follow from the code; run make generate");
    }
}

pub(crate) async fn runbook_documents_every_reason() {
    let text =
        fs::read_to_string(root().join("docs/reference/reasons.md")).expect("docs/reference/reasons.md is there");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<(String, String)> = rows
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>())
        .filter(|row| row.len() == 4 && !row[3].is_empty())
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned()))
        .collect();
    let known: Vec<(String, String)> =
        Reason::VARIANTS.iter().map(|reason| (reason.as_str().to_owned(), reason.describe().to_owned())).collect();
    assert_eq!(
        documented, known,
        "docs/reference/reasons.md: one row a reason, in the order and with the text of src/api"
    );
}

pub(crate) async fn documented_iam_policy_matches_the_printed_one() {
    let arguments = awsdeploy::operator::iam_policy::IamPolicyArguments {
        account: Some("123456789012".to_owned()),
        classes: Vec::new(),
        path: "/awsdeploy/".to_owned(),
        boundary: Some("arn:aws:iam::123456789012:policy/deploy-boundary".to_owned()),
        groups: Vec::new(),
        partition: "aws".to_owned(),
        role_arn: None,
        document: PolicyDocument::Permissions,
        operator_arn: None,
    };
    let (printed, _) = arguments.render().expect("a policy");
    let text = fs::read_to_string(root().join("docs/iam-policy.md")).expect("docs/iam-policy.md is there");
    let shown = text.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a JSON block");
    assert!(shown == printed, "docs/iam-policy.md does not show the output of iam-policy:\n{printed}");
}

/// `list` on Secrets of the whole cluster would read all of them.
pub(crate) async fn secrets_are_read_by_namespace_only() {
    let mut count = 0;
    for file in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&file).expect("a file");
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        if code.contains("Api<Secret>") || code.contains("Api::<Secret>") {
            count += 1;
            assert!(!code.contains("Api::all"), "{}", file.display());
            assert!(!code.contains(".list(") && !code.contains(".watch("), "{}", file.display());
        }
    }
    assert_eq!(count, 1, "Secrets are accessed in one file only");
}

/// A row without a test would be an unproven claim.
pub(crate) async fn threat_model_names_existing_tests() {
    let text = fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md is there");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !["| threat", "| record"].iter().any(|head| line.starts_with(head)));
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        for file in code_files(folder) {
            sources += &fs::read_to_string(&file).unwrap_or_default();
        }
    }
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            let found = [format!("fn {name}("), format!("def {name}(")].iter().any(|text| sources.contains(text));
            assert!(found, "there is no test {name}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// `make faults ONLY=` with a name that no run has would run nothing.
pub(crate) async fn documented_fault_cells_are_those_of_the_scenarios() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect("a file");
    let listed = |text: &str, from: &str, to: char| -> BTreeSet<String> {
        let names = text.split(from).skip(1).filter_map(|rest| rest.split(to).next());
        names.map(str::to_owned).collect()
    };
    let documented = listed(&read("docs/testing.md"), "cells `", '`');
    let scenarios = listed(&read("tests/faults/scenarios/mod.rs"), "cells: &[\"", ']');
    let scenarios: BTreeSet<String> =
        scenarios.iter().flat_map(|names| names.split('"').step_by(2)).map(str::to_owned).collect();
    assert!(scenarios.len() > 10, "{scenarios:?}");
    assert_eq!(documented, scenarios);
}

/// Words that the rules for prose exclude, with the plain term that replaces each.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("a look", "a read, a check"),
    ("anew", "again"),
    ("as it is written", "verbatim"),
    ("at the most", "at most"),
    ("crowd", "tasks"),
    ("dear", "expensive"),
    ("deed", "effect"),
    ("deeds", "effects"),
    ("for ever", "forever, without limit"),
    ("hand out", "publish"),
    ("handed out", "published"),
    ("hands out", "publishes"),
    ("in vain", "without result"),
    ("looks at", "observes, reads, checks"),
    ("mend", "fix, repair"),
    ("mended", "fixed, repaired"),
    ("mends", "fixes, repairs"),
    ("nobody", "the actor"),
    ("so many", "the number"),
    ("somebody", "the actor"),
    ("takes for", "treats as"),
    ("tell", "report, log, write"),
    ("tells", "reports, logs, writes"),
    ("told", "reported, logged, written"),
    ("whoever", "the actor"),
    ("whom", "the actor"),
];

/// Files or folders, and a banned word that they may contain, with the reason.
const ALLOWED_WORDS: &[(&str, &str, &str)] =
    &[("tests/it/architecture.rs", "", "defines the words"), ("CONTRIBUTING.md", "", "may quote the words")];

/// Files and folders whose text follows the rules for prose.
const PROSE: &[&str] = &[
    ".ci/run",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Dockerfile",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "charts",
    "demo",
    "docs",
    "examples",
    "integrations",
    "src",
    "tests",
];

/// Extensions of other text files in these folders: lock files, checksums, fixtures and binaries are not prose.
const PROSE_EXTENSIONS: &[&str] =
    &["", "gotmpl", "json", "lua", "md", "mk", "py", "rs", "sh", "tpl", "toml", "txt", "yaml", "yml"];

/// Former names of modules and types that have a standard term now.
const RETIRED_NAMES: &[&str] = &[
    "Answerable",
    "Asked",
    "Crowd",
    "Deeds",
    "HearThrottling",
    "Held",
    "Memory",
    "News",
    "Openings",
    "Outlook",
    "Pass",
    "PassError",
    "PassObserver",
    "PassSettings",
    "Quiet",
    "Rhythm",
    "Rooms",
    "Ruling",
    "Scene",
    "Scraper",
    "Scrapers",
    "Standing",
    "Stranger",
    "Verdict",
    "Way",
    "Why",
    "Withdrawn",
];
const RETIRED_MODULES: &[&str] = &[
    "class_verdict",
    "crowd",
    "gates",
    "guard",
    "leftovers",
    "line",
    "mark",
    "possession",
    "report",
    "rooms",
    "ruling",
    "scene",
    "tell",
    "verdict",
    "withdraw",
    "words",
];

/// Types that are defined in several modules, with the reason.
const REPEATED_TYPES: &[(&str, &str)] = &[
    ("Error", "idiom: one per module, used with the path of the module"),
    ("Result", "idiom: the alias for the Error of the module"),
];

const MAX_TEST_NAME_LENGTH: usize = 60;

fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether the line contains the phrase as whole words, in any case.
fn contains_phrase(line: &str, phrase: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(phrase).any(|(at, found)| {
        !line[..at].ends_with(is_word_character) && !line[at + found.len()..].starts_with(is_word_character)
    })
}

/// The line without code spans and quotations, which may belong to others.
fn without_quotes(line: &str) -> String {
    let mut text = String::new();
    for (number, part) in line.split('`').enumerate() {
        if number % 2 == 0 {
            let unquoted = part.split('"').enumerate().filter(|(number, _)| number % 2 == 0).map(|(_, part)| part);
            text.extend(unquoted);
        }
        text.push(' ');
    }
    text
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn prose_files() -> Vec<PathBuf> {
    fn walk(path: PathBuf, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path());
            let visible = entries.filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                !name.starts_with('.') && name != "fixtures" && name != "schemas" && name != "__pycache__"
            });
            visible.for_each(|path| walk(path, found));
        } else if PROSE_EXTENSIONS.contains(&path.extension().unwrap_or_default().to_string_lossy().as_ref()) {
            found.push(path);
        }
    }
    let mut found = Vec::new();
    for path in PROSE.iter().map(|path| root().join(path)).filter(|path| path.exists()) {
        walk(path, &mut found);
    }
    found.sort();
    found
}

pub(crate) async fn prose_avoids_banned_words() {
    let mut hits = Vec::new();
    for path in prose_files() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let (name, markdown) = (relative(&path), path.extension().is_some_and(|extension| extension == "md"));
        let allowed = |word: &str| {
            ALLOWED_WORDS
                .iter()
                .any(|(file, allowed, _)| name.starts_with(file) && (allowed.is_empty() || *allowed == word))
        };
        for (number, line) in text.lines().enumerate() {
            let line = if markdown { without_quotes(line) } else { line.to_owned() };
            for (word, term) in BANNED_WORDS {
                if contains_phrase(&line, word) && !allowed(word) {
                    hits.push(format!("{name}:{}: {word:?}, use: {term}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(hits.is_empty(), "{} banned words:\n{}", hits.len(), hits.join("\n"));
}

/// The code of a file without comments and the content of string literals.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        code.extend(line.split('"').step_by(2));
        code.push('\n');
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !is_word_character(character)).filter(|word| !word.is_empty())
}

pub(crate) async fn retired_names_are_not_used() {
    let mut hits = Vec::new();
    for path in code_files("src") {
        let name = relative(&path);
        let module = path.file_stem().unwrap_or_default().to_string_lossy();
        if RETIRED_MODULES.contains(&module.as_ref()) {
            hits.push(format!("{name}: module"));
        }
        let text = fs::read_to_string(&path).expect("a file");
        for (number, line) in code_of(&text).lines().enumerate() {
            let retired = words(line).filter(|word| RETIRED_NAMES.contains(word));
            hits.extend(retired.map(|word| format!("{name}:{}: {word}", number + 1)));
        }
    }
    assert!(hits.is_empty(), "{} retired names:\n{}", hits.len(), hits.join("\n"));
}

/// Two types of one name make readers open the imports to know which one is meant.
pub(crate) async fn type_names_are_unique() {
    let mut definitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("a file");
        for (number, line) in text.lines().enumerate() {
            let declaration = line
                .strip_prefix("pub ")
                .or_else(|| {
                    line.split_once(") ").filter(|(visibility, _)| visibility.starts_with("pub(")).map(|(_, rest)| rest)
                })
                .unwrap_or(line);
            let mut tokens = words(declaration);
            let is_type =
                matches!(tokens.next(), Some("struct" | "enum" | "trait" | "union" | "type")) && !line.starts_with(' ');
            if let Some(name) = tokens.next().filter(|_| is_type) {
                let place = format!("{}:{}", relative(&path), number + 1);
                definitions.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    let repeated: Vec<String> = definitions
        .iter()
        .filter(|(name, places)| places.len() > 1 && REPEATED_TYPES.iter().all(|(allowed, _)| allowed != name))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(repeated.is_empty(), "{} type names are defined more than once:\n{}", repeated.len(), repeated.join("\n"));
}

/// The names of all tests with their files: `#[test]` functions, tests of the `it` and `attack` binaries and runs of scenarios.
fn test_names() -> Vec<(String, String)> {
    let mut names = Vec::new();
    for path in ["src", "tests"].iter().flat_map(|folder| code_files(folder)) {
        let (name, text) = (relative(&path), fs::read_to_string(&path).expect("a file"));
        let registered =
            ["tests/it/", "tests/attack/", "tests/faults/scenarios/"].iter().any(|folder| name.starts_with(folder));
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let Some((before, after)) = line.split_once("fn ").or_else(|| line.split_once("def ")) else { continue };
            let function = words(after).next().unwrap_or_default();
            let registered = registered && before.starts_with("pub(") && before.contains("async");
            if is_test || registered || function.starts_with("test_") {
                names.push((name.clone(), function.trim_start_matches("test_").to_owned()));
            }
            is_test = false;
        }
    }
    names
}

pub(crate) async fn test_names_are_short() {
    let names = test_names();
    assert!(names.len() > 200, "{}", names.len());
    let long: Vec<String> = names
        .iter()
        .filter(|(_, name)| name.len() > MAX_TEST_NAME_LENGTH)
        .map(|(file, name)| format!("{file}: {name} ({})", name.len()))
        .collect();
    let count = long.len();
    assert!(long.is_empty(), "{count} test names are longer than {MAX_TEST_NAME_LENGTH}:\n{}", long.join("\n"));
}
