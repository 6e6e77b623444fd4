//! What can be installed: this work tree, and the release before it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use awsdeploy_testkit::tools::repository;
use serde_json::Value;

use crate::world::RELEASE;

/// Where the built programs are: cargo's target directory.
pub(crate) const PROGRAMS_VARIABLE: &str = "AWSDEPLOY_E2E_PROGRAMS";
/// Of which profile the operators are: debug or release.
const PROFILE_VARIABLE: &str = "AWSDEPLOY_E2E_PROFILE";
/// The directory of the release before, as `previous/build` prints it. Empty: the story is of one version.
const PREVIOUS_VARIABLE: &str = "AWSDEPLOY_E2E_PREVIOUS";

/// The profile of the build.
pub(crate) fn profile() -> String {
    env::var(PROFILE_VARIABLE).unwrap_or_else(|_| "debug".to_owned())
}

/// The testkit's program.
pub(crate) fn testkit() -> PathBuf {
    programs().join("debug/testkit")
}

fn programs() -> PathBuf {
    PathBuf::from(env::var_os(PROGRAMS_VARIABLE).unwrap_or_default())
}

/// A version of the operator with its chart, its Dockerfile and its documents.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// The tag of its image.
    pub(crate) tag: &'static str,
    /// The root of its tree.
    pub(crate) tree: PathBuf,
    /// The operator.
    pub(crate) program: PathBuf,
}

impl Version {
    /// The one of this work tree.
    pub(crate) fn of_today() -> Self {
        Self { tag: "today", tree: repository().to_owned(), program: programs().join(profile()).join(RELEASE) }
    }

    /// The one before, if there is one in the story.
    pub(crate) fn before() -> Option<Self> {
        let tree = PathBuf::from(env::var_os(PREVIOUS_VARIABLE).filter(|directory| !directory.is_empty())?);
        Some(Self { tag: "before", program: tree.join("bin").join(RELEASE), tree })
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

    /// Its chart, as commands name it.
    pub(crate) fn chart(&self) -> String {
        self.named("charts/aws-deploy-user-operator")
    }

    /// A file of its tree, as commands name it: they run in the root of the repository.
    pub(crate) fn named(&self, path: &str) -> String {
        let file = self.file(path);
        file.strip_prefix(repository()).unwrap_or(&file).display().to_string()
    }

    /// Those of the values that its chart knows; what came later is told and left out.
    pub(crate) fn known(&self, values: Value) -> Value {
        let schema = self.text("charts/aws-deploy-user-operator/values.schema.json");
        known(values, &serde_json::from_str(&schema).expect("the schema is JSON"), Path::new(""))
    }
}

fn known(values: Value, schema: &Value, place: &Path) -> Value {
    let (Value::Object(values), Some(properties)) = (&values, schema["properties"].as_object()) else { return values };
    let mut left = serde_json::Map::new();
    for (name, value) in values {
        let place = place.join(name);
        match properties.get(name) {
            Some(schema) => drop(left.insert(name.clone(), known(value.clone(), schema, &place))),
            None => println!("values: {} is not known to that chart yet", place.display()),
        }
    }
    Value::Object(left)
}
