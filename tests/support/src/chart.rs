//! Renders and installs the Helm chart with the helm binary.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    Error, Result,
    pki::write_private,
    process::{Process, ProcessSpec},
    tools::{Tools, repository},
};

/// Limit of one helm command.
const HELM_LIMIT: Duration = Duration::from_mins(2);

/// A release of the chart: its name, its namespace and its values.
#[derive(Clone, Debug)]
pub struct Chart {
    helm: PathBuf,
    source: PathBuf,
    /// Holds values, output and log, and helm's home, so that the user's helm configuration is not used.
    directory: PathBuf,
    release: String,
    namespace: String,
    values: Value,
}

impl Chart {
    /// The chart of this repository as `release` in `namespace`, with its default values. Files of helm are written to
    /// `directory`.
    pub fn new(
        tools: &Tools,
        directory: impl Into<PathBuf>,
        release: impl Into<String>,
        namespace: impl Into<String>,
    ) -> Self {
        Self {
            helm: tools.program("helm"),
            source: repository().join("charts/aws-deploy-user-operator"),
            directory: directory.into(),
            release: release.into(),
            namespace: namespace.into(),
            values: Value::Object(serde_json::Map::new()),
        }
    }

    /// Uses another chart, packed or in a directory.
    #[must_use]
    pub fn source(mut self, source: impl Into<PathBuf>) -> Self {
        self.source = source.into();
        self
    }

    /// Replaces the values.
    #[must_use]
    pub fn values(mut self, values: Value) -> Self {
        self.values = values;
        self
    }

    /// Renders the objects of the chart, CRDs included, in the order of `helm template`.
    pub async fn template(&self) -> Result<Vec<DynamicObject>> {
        let text = self.helm(["template", &self.release], None).await?;
        let documents: Vec<Option<DynamicObject>> = serde_saphyr::from_multiple(&text)
            .map_err(|error| Error::Unexpected(format!("helm template did not print a list of objects: {error}")))?;
        Ok(documents.into_iter().flatten().collect())
    }

    /// Installs or upgrades the release and returns the output of helm. Creates the namespace if it is missing. Does
    /// not wait for pods, because they stay pending without a node.
    pub async fn install(&self, kubeconfig: &Path) -> Result<String> {
        self.helm(["upgrade", &self.release, "--install", "--create-namespace"], Some(kubeconfig)).await
    }

    /// Uninstalls the release. helm keeps the CRDs.
    pub async fn uninstall(&self, kubeconfig: &Path) -> Result<String> {
        let spec = self.spec("uninstall").arguments(["uninstall", &self.release, "--wait"]);
        Process::run(self.in_namespace(spec, Some(kubeconfig)), HELM_LIMIT).await
    }

    async fn helm<const N: usize>(&self, arguments: [&str; N], kubeconfig: Option<&Path>) -> Result<String> {
        let values = self.directory.join(format!("{}.values.json", self.release));
        write_private(&values, &self.values.to_string())?;
        let spec = self.spec(arguments[0]).arguments(arguments);
        let spec = if kubeconfig.is_none() { spec.argument("--include-crds") } else { spec };
        let spec = spec.argument(&self.source).argument("--values").argument(&values);
        Process::run(self.in_namespace(spec, kubeconfig), HELM_LIMIT).await
    }

    fn spec(&self, verb: &str) -> ProcessSpec {
        let file = |end: &str| self.directory.join(format!("{}.helm-{verb}.{end}", self.release));
        let mut spec = ProcessSpec::new(format!("helm {verb}"), &self.helm, file("log")).output(file("out"));
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            spec = spec.variable(variable, self.directory.join("helm").join(folder));
        }
        spec
    }

    fn in_namespace(&self, spec: ProcessSpec, kubeconfig: Option<&Path>) -> ProcessSpec {
        let spec = spec.arguments(["--namespace", &self.namespace]);
        match kubeconfig {
            Some(file) => spec.argument("--kubeconfig").argument(file),
            None => spec,
        }
    }
}
