//! `--output` and what belongs to it: where a build's result goes, in buildx's and isula-build's spellings.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use crate::build::{self, Built};
use crate::error::{Error, Result, nearest, quote};
use crate::event::Sink;
use crate::oci::{Descriptor, Reference};
use crate::store::Store;
use crate::transfer::{self, Client, Documents, Job, Outgoing, Packing, Place, Repack, Shape, Subject};

use super::attributes::Attributes;

#[derive(clap::Args)]
pub struct OutputArguments {
    /// Where the result goes, besides the storage directory; may be repeated [type=local|tar|oci|docker|image|registry|squashfs|cacheonly
    /// with dest=, name=, compression=…; a directory; - for a tarball; or oci-archive:FILE, oci:DIR, docker-archive:FILE, docker-daemon:REF,
    /// docker://REF, oci://REF, isulad:REF]
    #[arg(long, short, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Push the image under its names; short for --output type=registry
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set)]
    push: bool,
    /// Keep the image in the storage directory, as is always done; for scripts written for buildx
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set)]
    load: bool,
    /// Write the digests of what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
}

/// All outputs of a build.
pub struct Outputs {
    outputs: Vec<Output>,
    /// The names outputs have that say none: those of `--tag`, or all there are.
    names: Vec<Reference>,
    metadata: Option<PathBuf>,
}

/// One output.
#[derive(Debug, PartialEq)]
struct Output {
    target: Target,
    shape: Shape,
    /// Instead of the build's names.
    names: Vec<Reference>,
}

#[derive(Debug, PartialEq)]
enum Target {
    /// Some place, or several if it is to have several names.
    Place(Place),
    /// The registry of each name.
    Registry,
    /// The storage directory.
    Keep,
    /// Nowhere: only the steps are remembered.
    Forget,
}

impl OutputArguments {
    /// Reads the options. `tags` gains the names that outputs give.
    pub fn parse(&self, tags: &mut Vec<Reference>) -> Result<Outputs> {
        let mut own = tags.clone();
        let mut outputs = self.output.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>>>()?;
        if self.push {
            outputs.push(Output { target: Target::Registry, shape: Shape::default(), names: Vec::new() });
        }
        for output in &outputs {
            let named = match &output.target {
                Target::Place(place) => place.reference().into_iter().collect(),
                Target::Registry | Target::Keep => output.names.clone(),
                Target::Forget => Vec::new(),
            };
            // A digest can't be given to an image that is yet to be made.
            for name in named.into_iter().filter(|name| name.digest().is_none()) {
                if !tags.contains(&name) {
                    tags.push(name);
                }
            }
        }
        if own.is_empty() {
            own.clone_from(tags);
        }
        outputs.iter().try_for_each(|output| output.check(&own))?;
        if outputs.iter().filter(|output| output.writes_stream()).count() > 1 {
            return Err(Error::input("two outputs want standard output").hint("give one of them a file: `dest=FILE`"));
        }
        Ok(Outputs { outputs, names: own, metadata: self.metadata_file.clone() })
    }
}

impl Outputs {
    /// Whether standard output is taken.
    pub fn write_stream(&self) -> bool {
        self.outputs.iter().any(Output::writes_stream)
    }

    /// Writes all outputs of a finished build.
    pub fn write(&self, store: &Store, client: &Client, built: &Built, sink: &dyn Sink) -> Result<()> {
        let with_platform = |image: &build::BuiltImage| Descriptor { platform: Some(image.platform.clone()), ..image.manifest.clone() };
        let subject = Subject { manifests: built.images.iter().map(with_platform).collect(), index: built.index.clone() };
        let mut written = built.index.clone().unwrap_or_else(|| built.images[0].manifest.clone());
        for output in &self.outputs {
            let names = if output.names.is_empty() { &self.names } else { &output.names };
            let images = [Outgoing { subject: &subject, names }];
            let job = Job { store, client, images: &images, shape: &output.shape, sink };
            match &output.target {
                Target::Place(place) => {
                    let root = transfer::write(&job, place, &mut std::io::stdout().lock())?;
                    // Other places hold no manifest.
                    if matches!(place, Place::Registry { .. } | Place::OciArchive { .. } | Place::OciLayout { .. }) {
                        written = root;
                    }
                }
                Target::Registry => {
                    for name in names {
                        written = transfer::push(store, client, &subject, name, &output.shape, sink)?;
                    }
                }
                Target::Keep | Target::Forget => {}
            }
        }
        if let Some(file) = &self.metadata {
            write_metadata(file, built, &written)?;
        }
        // The result is elsewhere, and nobody named it here.
        let wanted = self.outputs.is_empty() || self.outputs.iter().any(|output| output.target == Target::Keep);
        for name in built.names.iter().filter(|name| !wanted && build::is_unnamed(name)) {
            store.remove_image(name)?;
        }
        Ok(())
    }
}

impl Output {
    fn parse(text: &str) -> Result<Self> {
        let plain = |place| Ok(Self { target: Target::Place(place), shape: Shape::default(), names: Vec::new() });
        if text == "-" {
            return plain(Place::Tarball("-".into()));
        }
        if Place::is_spelled(text) {
            return match text.parse()? {
                // In isula-build's sense, which has `oci://` for OCI's documents.
                Place::Registry { reference, documents: Documents::Same } => {
                    plain(Place::Registry { reference, documents: Documents::Docker })
                }
                place => plain(place),
            };
        }
        let first = text.split(',').next().unwrap_or_default();
        if !first.trim_start_matches('"').contains('=') {
            // isula-build's users mistype transports; a path that begins like one is written `./oci:…`.
            return match text.split_once(':') {
                Some((transport, _)) if !transport.contains('/') => text.parse().and_then(plain),
                _ => plain(Place::Directory(text.into())),
            };
        }
        let mut attributes = Attributes::parse("--output", text)?;
        let output = Self::of_attributes(&mut attributes)?;
        attributes.finish()?;
        Ok(output)
    }

    fn of_attributes(attributes: &mut Attributes) -> Result<Self> {
        const TYPES: [&str; 8] = ["local", "tar", "oci", "docker", "image", "registry", "squashfs", "cacheonly"];
        let kind = attributes.take("type").ok_or_else(|| attributes.bad("it has no `type=`"))?;
        let names = names(attributes)?;
        let dest = attributes.take("dest").filter(|dest| !dest.is_empty());
        let needed = |attributes: &Attributes| dest.clone().map(PathBuf::from).ok_or_else(|| attributes.bad("it has no `dest=`"));
        let file = PathBuf::from(dest.as_deref().unwrap_or("-"));
        let target = match kind.as_str() {
            "local" => Target::Place(Place::Directory(needed(attributes)?)),
            "squashfs" => Target::Place(Place::Squashfs(needed(attributes)?)),
            "tar" => Target::Place(Place::Tarball(file)),
            "oci" if attributes.flag("tar", true)? => Target::Place(Place::OciArchive { file, name: None }),
            "oci" => Target::Place(Place::OciLayout { directory: needed(attributes)?, name: None }),
            "docker" => Target::Place(match &dest {
                Some(_) => Place::DockerArchive { file, name: None },
                None => Place::DockerDaemon(None),
            }),
            "image" if attributes.flag("push", false)? => Target::Registry,
            "image" => Target::Keep,
            "registry" => Target::Registry,
            "cacheonly" => Target::Forget,
            other => {
                let error = attributes.bad(&format!("there is no type {}", quote(other)));
                return Err(match nearest(other, TYPES) {
                    Some(near) => error.hint(format!("did you mean {}?", quote(near))),
                    None => error.hint(format!("use one of {}", TYPES.join(", "))),
                });
            }
        };
        if matches!(target, Target::Place(Place::Squashfs(_))) {
            let file = Some(compression(attributes, crate::cli::push::squashfs_packing)?);
            return Ok(Self { target, shape: Shape { file, ..shape(attributes)? }, names });
        }
        Ok(Self { target, shape: shape(attributes)?, names })
    }

    fn check(&self, tags: &[Reference]) -> Result<()> {
        let nameless = self.names.is_empty() && tags.is_empty();
        if nameless && matches!(self.target, Target::Registry | Target::Place(Place::DockerDaemon(None))) {
            return Err(Error::input("the image has no name to go by").hint("name it: `--tag NAME`, or `name=NAME` in the output"));
        }
        if self.writes_stream() && std::io::stdout().is_terminal() {
            return Err(Error::input("not writing an archive to a terminal").hint("redirect it, or give the output a file: `dest=FILE`"));
        }
        Ok(())
    }

    fn writes_stream(&self) -> bool {
        let dash = |file: &PathBuf| file == Path::new("-");
        match &self.target {
            Target::Place(Place::OciArchive { file, .. } | Place::DockerArchive { file, .. } | Place::Tarball(file)) => dash(file),
            _ => false,
        }
    }
}

fn names(attributes: &mut Attributes) -> Result<Vec<Reference>> {
    let names = attributes.take("name").unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
}

/// The attributes on form, as BuildKit's exporters have them.
fn shape(attributes: &mut Attributes) -> Result<Shape> {
    let mut shape = Shape::default();
    if let Some(oci) = attributes.maybe_flag("oci-mediatypes")? {
        shape.documents = if oci { Documents::Oci } else { Documents::Docker };
    }
    shape.packing = packing(attributes)?;
    if attributes.flag("force-compression", false)? {
        shape.repack = Repack::All;
    }
    let notes = &mut shape.annotations;
    notes.manifest = attributes.take_prefixed("annotation.");
    for (prefix, place) in [
        ("annotation-manifest.", &mut notes.manifest),
        ("annotation-manifest-descriptor.", &mut notes.manifest_descriptor),
        ("annotation-index.", &mut notes.index),
        ("annotation-index-descriptor.", &mut notes.root_descriptor),
    ] {
        place.extend(attributes.take_prefixed(prefix));
    }
    // What these ask for is so anyway.
    for done in ["unpack", "store", "buildinfo", "dangling-name-prefix", "platform-split", "rewrite-timestamp"] {
        attributes.take(done);
    }
    Ok(shape)
}

/// How layers are compressed.
pub fn packing(attributes: &mut Attributes) -> Result<Packing> {
    compression(attributes, crate::cli::push::packing)
}

/// What `read` makes of the attributes on compression.
fn compression<T>(attributes: &mut Attributes, read: fn(Option<&str>, Option<i32>) -> Result<T>) -> Result<T> {
    let word = attributes.take("compression");
    let level = attributes.take("compression-level");
    let level =
        level.map(|level| level.parse().map_err(|_| attributes.bad(&format!("level {} is no number", quote(&level))))).transpose()?;
    read(word.as_deref(), level).map_err(|e| attributes.bad(&e.to_string()))
}

/// buildx's keys.
fn write_metadata(file: &Path, built: &Built, written: &Descriptor) -> Result<()> {
    let mut metadata = BTreeMap::from([
        ("containerimage.digest", serde_json::json!(written.digest)),
        ("containerimage.descriptor", serde_json::to_value(written).unwrap_or_default()),
    ]);
    if let [only] = built.images.as_slice() {
        metadata.insert("containerimage.config.digest", serde_json::json!(only.id));
    }
    let names: Vec<String> = built.names.iter().filter(|name| !build::is_unnamed(name)).map(ToString::to_string).collect();
    if !names.is_empty() {
        metadata.insert("image.name", names.join(",").into());
    }
    let mut bytes = serde_json::to_vec_pretty(&metadata).expect("plain data");
    bytes.push(b'\n');
    let mut out = std::fs::File::create(file).map_err(|e| Error::io("create", file, e))?;
    out.write_all(&bytes).map_err(|e| Error::io("write", file, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::compress::Compression;

    fn place(text: &str) -> Place {
        match Output::parse(text).unwrap().target {
            Target::Place(place) => place,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn reads_places() {
        for (text, expected) in [
            ("-", Place::Tarball("-".into())),
            ("out", Place::Directory("out".into())),
            ("./oci:x", Place::Directory("./oci:x".into())),
            ("type=local,dest=a/b", Place::Directory("a/b".into())),
            ("type=tar", Place::Tarball("-".into())),
            ("type=tar,dest=x.tar.gz", Place::Tarball("x.tar.gz".into())),
            ("type=oci,dest=x.tar", Place::OciArchive { file: "x.tar".into(), name: None }),
            ("type=oci,dest=x,tar=false", Place::OciLayout { directory: "x".into(), name: None }),
            ("type=docker,dest=x.tar", Place::DockerArchive { file: "x.tar".into(), name: None }),
            ("type=docker", Place::DockerDaemon(None)),
            ("\"type=local\",\"dest=a,b\"", Place::Directory("a,b".into())),
            ("oci-archive:f:app:1", Place::OciArchive { file: "f".into(), name: Some("app:1".into()) }),
        ] {
            assert_eq!(place(text), expected, "{text}");
        }
    }

    #[test]
    fn reads_forms() {
        let output = Output::parse(
            "type=image,\"name=a:1,b\",push=true,compression=zstd,compression-level=9,force-compression=true,oci-mediatypes=true,annotation.k=v=w",
        )
        .unwrap();
        assert_eq!(output.target, Target::Registry);
        assert_eq!(output.names, ["a:1".parse().unwrap(), "b".parse().unwrap()]);
        assert_eq!(output.shape.packing, Packing { compression: Compression::Zstd, level: Some(9) });
        assert_eq!((output.shape.documents, output.shape.repack), (Documents::Oci, Repack::All));
        assert_eq!(output.shape.annotations.manifest["k"], "v=w");
    }

    #[test]
    fn refuses_others() {
        for (text, expected) in [
            ("dest=x", "no `type=`"),
            ("type=local", "no `dest=`"),
            ("type=loca,dest=x", "no type `loca`"),
            ("type=oci,dst=x", "unknown attribute `dst`"),
            ("type=oci,tar=maybe", "`tar=maybe`"),
            ("type=oci,compression=lzma", "`lzma`"),
            ("oci-archiv:x", "no transport `oci-archiv`"),
            ("type=oci,type=tar", "twice"),
        ] {
            let error = Output::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
