//! The images of the run, made without a registry: the operator's by the Dockerfile as it is, what it would pull replaced
//! from outside; and one of the testkit, which is the workload and also what holds a pod's namespaces.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use awsdeploy_testkit::{Error, Result};
use serde_json::Value;

use crate::{shell::Shell, version::Version};

/// The operator's repository; the tags are those of the versions.
pub(crate) const OPERATOR: &str = "localhost/aws-deploy-user-operator";
/// The workload.
pub(crate) const TESTKIT: &str = "localhost/testkit:e2e";

/// Certificates of public authorities, as distroless has them.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";

/// What was built.
pub(crate) struct Images {
    /// Archives for `ctr images import`.
    pub(crate) archives: Vec<PathBuf>,
    /// The image of the first version as a registry would keep it: an OCI layout with compressed layers.
    pub(crate) layout: PathBuf,
}

/// Builds the images of these versions, and the testkit's.
pub(crate) async fn build(shell: &Shell, run: &Path, versions: &[&Version], testkit: &Path) -> Result<Images> {
    let directory = run.join("images");
    let place = |name: &str| directory.join(name).display().to_string();
    for name in ["base", "testkit"] {
        make(&directory.join(name))?;
    }
    let kit = directory.join("testkit/testkit");
    shell.quiet(&format!("strip -o {} {}", kit.display(), testkit.display())).await?;
    let mut programs = vec![kit];
    for version in versions {
        let out = directory.join(version.tag).join("out");
        make(&out)?;
        let program = out.join("aws-deploy-user-operator");
        shell.quiet(&format!("strip -o {} {}", program.display(), version.program.display())).await?;
        programs.push(program);
    }
    base(shell, &directory.join("base"), &programs).await?;
    write(&directory.join("base.Dockerfile"), "FROM scratch\nCOPY . /\n")?;
    let testkit = "FROM localhost/base\nCOPY testkit /usr/local/bin/testkit\nUSER 65532:65532\n\
        ENTRYPOINT [\"/usr/local/bin/testkit\"]\nCMD [\"pause\"]\n";
    write(&directory.join("testkit.Dockerfile"), testkit)?;

    // A storage of its own: no image of the machine is seen, none is left behind.
    let buildah = format!(
        "buildah --root {} --runroot {} --storage-driver vfs",
        place("storage"),
        directory.join("storage-run").display()
    );
    let build = format!("{buildah} bud --isolation chroot --pull-never --tag");
    shell.quiet(&format!("{build} localhost/base --file {} {}", place("base.Dockerfile"), place("base"))).await?;
    shell.quiet(&format!("{build} {TESTKIT} --file {} {}", place("testkit.Dockerfile"), place("testkit"))).await?;
    let mut images = vec![TESTKIT.to_owned()];
    for version in versions {
        let image = format!("{OPERATOR}:{}", version.tag);
        let dockerfile = version.file("Dockerfile");
        shell
            .quiet(&format!(
                "{build} {image} --build-context build={} --build-context {}=container-image://localhost/base --file {} {}",
                place(version.tag),
                published_base(&dockerfile)?,
                dockerfile.display(),
                version.tree.display(),
            ))
            .await?;
        images.push(image);
    }

    let mut archives = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let archive = directory.join(format!("{number}.tar"));
        shell.quiet(&format!("{buildah} push {image} docker-archive:{}:{image}", archive.display())).await?;
        archives.push(archive);
    }
    let layout = directory.join("layout");
    shell.quiet(&format!("{buildah} push {} oci:{}:image", images[1], layout.display())).await?;
    Ok(Images { archives, layout })
}

/// The image that the Dockerfile's last stage is made from.
fn published_base(dockerfile: &Path) -> Result<String> {
    let text = read(dockerfile)?;
    let base = text.lines().rev().find_map(|line| line.strip_prefix("FROM "));
    base.map(|base| base.trim().to_owned())
        .ok_or_else(|| Error::Unexpected(format!("{} has no FROM", dockerfile.display())))
}

/// What distroless/cc has and these programs need, from the files of this machine: libraries, certificates, users.
async fn base(shell: &Shell, directory: &Path, programs: &[PathBuf]) -> Result<()> {
    let mut files = BTreeSet::from([PathBuf::from(CERTIFICATES)]);
    for program in programs {
        let libraries = shell.quiet(&format!("ldd {}", program.display())).await?;
        // "libc.so.6 => /lib/libc.so.6 (0x...)", and the loader without an arrow.
        let paths = libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        files.extend(paths.map(PathBuf::from));
    }
    for file in files {
        let target = directory.join(file.strip_prefix("/").unwrap_or(&file));
        make(target.parent().unwrap_or(directory))?;
        fs::copy(&file, &target).map_err(|source| failed("copy", &file, source))?;
    }
    make(&directory.join("etc"))?;
    write(&directory.join("etc/passwd"), PASSWD)?;
    write(&directory.join("etc/group"), GROUP)
}

/// An image in an OCI layout.
pub(crate) struct Layout {
    /// Its configuration: user, entry point, labels.
    pub(crate) config: Value,
    /// Its layers, the base's first: the blob and its compressed size in bytes.
    pub(crate) layers: Vec<(PathBuf, u64)>,
}

impl Layout {
    /// Reads the only image of a layout.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            directory.join("blobs").join(digest.replace(':', "/"))
        };
        let index = json(&directory.join("index.json"))?;
        let manifest = json(&blob(&index["manifests"][0]))?;
        let layers = manifest["layers"].as_array().into_iter().flatten();
        Ok(Self {
            config: json(&blob(&manifest["config"]))?["config"].clone(),
            layers: layers.map(|layer| (blob(layer), layer["size"].as_u64().unwrap_or_default())).collect(),
        })
    }
}

fn json(file: &Path) -> Result<Value> {
    serde_json::from_str(&read(file)?).map_err(|error| Error::Unexpected(format!("{}: {error}", file.display())))
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(|source| failed("create", directory, source))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|source| failed("read", file, source))
}

fn write(file: &Path, content: &str) -> Result<()> {
    fs::write(file, content).map_err(|source| failed("write", file, source))
}

fn failed(what: &str, file: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("{what} {}", file.display()), source }
}
