//! Builds the images without a registry: the operator's image with the unchanged Dockerfile, whose base images are
//! replaced by build contexts; and the testkit's image, which is the workload and the sandbox image.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use awsdeploy_testkit::{Error, Result};
use serde_json::Value;

use crate::{shell::Shell, version::Version};

/// Repository of the operator; versions are tags.
pub(crate) const OPERATOR: &str = "localhost/aws-deploy-user-operator";
/// Image of the workload.
pub(crate) const TESTKIT: &str = "localhost/testkit:e2e";

/// Public CA certificates, as in distroless.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";

/// Built images.
pub(crate) struct Images {
    /// Archives for `ctr images import`.
    pub(crate) archives: Vec<PathBuf>,
    /// The image of the first version as an OCI layout with compressed layers, as in a registry.
    pub(crate) layout: PathBuf,
}

/// Builds the images of `versions` and of the testkit.
pub(crate) async fn build(shell: &Shell, run: &Path, versions: &[&Version], testkit: &Path) -> Result<Images> {
    let directory = run.join("images");
    let path = |name: &str| directory.join(name).display().to_string();
    for name in ["base", "testkit"] {
        create_dir(&directory.join(name))?;
    }
    let kit = directory.join("testkit/testkit");
    shell.run(&format!("strip -o {} {}", kit.display(), testkit.display())).await?;
    let mut programs = vec![kit];
    for version in versions {
        let out = directory.join(version.tag).join("out");
        create_dir(&out)?;
        let program = out.join("aws-deploy-user-operator");
        shell.run(&format!("strip -o {} {}", program.display(), version.program.display())).await?;
        programs.push(program);
    }
    base(shell, &directory.join("base"), &programs).await?;
    write(&directory.join("base.Dockerfile"), "FROM scratch\nCOPY . /\n")?;
    let testkit = "FROM localhost/base\nCOPY testkit /usr/local/bin/testkit\nUSER 65532:65532\n\
        ENTRYPOINT [\"/usr/local/bin/testkit\"]\nCMD [\"pause\"]\n";
    write(&directory.join("testkit.Dockerfile"), testkit)?;

    // Separate storage, so that images of the host are neither used nor changed.
    let buildah = format!(
        "buildah --root {} --runroot {} --storage-driver vfs",
        path("storage"),
        directory.join("storage-run").display()
    );
    let build = format!("{buildah} bud --isolation chroot --pull-never --tag");
    shell.run(&format!("{build} localhost/base --file {} {}", path("base.Dockerfile"), path("base"))).await?;
    shell.run(&format!("{build} {TESTKIT} --file {} {}", path("testkit.Dockerfile"), path("testkit"))).await?;
    let mut images = vec![TESTKIT.to_owned()];
    for version in versions {
        let image = format!("{OPERATOR}:{}", version.tag);
        let dockerfile = version.file("Dockerfile");
        shell
            .run(&format!(
                "{build} {image} --build-context build={} --build-context {}=container-image://localhost/base --file {} {}",
                path(version.tag),
                base_image(&dockerfile)?,
                dockerfile.display(),
                version.tree.display(),
            ))
            .await?;
        images.push(image);
    }

    let mut archives = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let archive = directory.join(format!("{number}.tar"));
        shell.run(&format!("{buildah} push {image} docker-archive:{}:{image}", archive.display())).await?;
        archives.push(archive);
    }
    let layout = directory.join("layout");
    shell.run(&format!("{buildah} push {} oci:{}:image", images[1], layout.display())).await?;
    Ok(Images { archives, layout })
}

/// The base image of the last stage.
fn base_image(dockerfile: &Path) -> Result<String> {
    let text = read(dockerfile)?;
    let base = text.lines().rev().find_map(|line| line.strip_prefix("FROM "));
    base.map(|base| base.trim().to_owned())
        .ok_or_else(|| Error::Unexpected(format!("{} has no FROM", dockerfile.display())))
}

/// Replaces distroless/cc with files of the host: the libraries of `programs`, certificates, users.
async fn base(shell: &Shell, directory: &Path, programs: &[PathBuf]) -> Result<()> {
    let mut files = BTreeSet::from([PathBuf::from(CERTIFICATES)]);
    for program in programs {
        let libraries = shell.run(&format!("ldd {}", program.display())).await?;
        // "libc.so.6 => /lib/libc.so.6 (0x...)", and the loader without an arrow.
        let paths = libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        files.extend(paths.map(PathBuf::from));
    }
    for file in files {
        let target = directory.join(file.strip_prefix("/").unwrap_or(&file));
        create_dir(target.parent().unwrap_or(directory))?;
        fs::copy(&file, &target).map_err(|source| failed("copy", &file, source))?;
    }
    create_dir(&directory.join("etc"))?;
    write(&directory.join("etc/passwd"), PASSWD)?;
    write(&directory.join("etc/group"), GROUP)
}

/// An image as an OCI layout.
pub(crate) struct OciLayout {
    /// Configuration: user, entry point, labels.
    pub(crate) config: Value,
    /// Layers, starting with the base: blob and compressed size in bytes.
    pub(crate) layers: Vec<(PathBuf, u64)>,
}

impl OciLayout {
    /// Reads the single image of a layout.
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

fn create_dir(directory: &Path) -> Result<()> {
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
