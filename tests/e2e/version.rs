//! Installable versions: this work tree and the previous release.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use awsdeploy_testkit::tools::repository;
use serde_json::Value;

use crate::environment::RELEASE;

/// Directory of the built binaries: cargo's target directory.
pub(crate) const PROGRAMS_VARIABLE: &str = "AWSDEPLOY_E2E_PROGRAMS";
/// Build profile of the operator: debug or release.
const PROFILE_VARIABLE: &str = "AWSDEPLOY_E2E_PROFILE";
/// Directory of the previous release, as printed by `previous/build`. Empty: only one version is used.
const PREVIOUS_VARIABLE: &str = "AWSDEPLOY_E2E_PREVIOUS";

/// The build profile.
pub(crate) fn profile() -> String {
    env::var(PROFILE_VARIABLE).unwrap_or_else(|_| "debug".to_owned())
}

/// The testkit binary.
pub(crate) fn testkit() -> PathBuf {
    programs().join("debug/testkit")
}

fn programs() -> PathBuf {
    PathBuf::from(env::var_os(PROGRAMS_VARIABLE).unwrap_or_default())
}

/// A version of the operator with chart, Dockerfile and docs.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Image tag.
    pub(crate) tag: &'static str,
    /// Root of its source tree.
    pub(crate) tree: PathBuf,
    /// Operator binary.
    pub(crate) program: PathBuf,
}

impl Version {
    /// The version of this work tree.
    pub(crate) fn current() -> Self {
        Self { tag: "current", tree: repository().to_owned(), program: programs().join(profile()).join(RELEASE) }
    }

    /// The previous release, if it is used.
    pub(crate) fn previous() -> Option<Self> {
        let tree = PathBuf::from(env::var_os(PREVIOUS_VARIABLE).filter(|directory| !directory.is_empty())?);
        Some(Self { tag: "previous", program: tree.join("bin").join(RELEASE), tree })
    }

    /// A file of its tree.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.tree.join(path)
    }

    /// The text of a file of its tree.
    pub(crate) fn text(&self, path: &str) -> String {
        let file = self.file(path);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// The path of its chart for commands.
    pub(crate) fn chart(&self) -> String {
        self.path_of("charts/aws-deploy-user-operator")
    }

    /// The path of a file of its tree for commands, which run in the root of the repository.
    pub(crate) fn path_of(&self, path: &str) -> String {
        let file = self.file(path);
        file.strip_prefix(repository()).unwrap_or(&file).display().to_string()
    }

    /// Removes and prints values that its chart does not support yet.
    pub(crate) fn supported_values(&self, values: Value) -> Value {
        let schema = self.text("charts/aws-deploy-user-operator/values.schema.json");
        supported_values(values, &serde_json::from_str(&schema).expect("the schema is JSON"), Path::new(""))
    }
}

fn supported_values(values: Value, schema: &Value, path: &Path) -> Value {
    let (Value::Object(values), Some(properties)) = (&values, schema["properties"].as_object()) else { return values };
    let mut supported = serde_json::Map::new();
    for (name, value) in values {
        let path = path.join(name);
        match properties.get(name) {
            Some(schema) => drop(supported.insert(name.clone(), supported_values(value.clone(), schema, &path))),
            None => println!("values: omitted {}, which that chart does not support", path.display()),
        }
    }
    Value::Object(supported)
}
