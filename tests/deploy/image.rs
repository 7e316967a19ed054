//! The image: what is in it, that it is the same each time, and that the worker runs in it as a pod would run it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::configuration::{environment, mounted};
use crate::process::until;
use crate::tools::{done, named, pod, root, template, text};

/// What the image and the tarball are, unpacked.
struct Built {
    folder: tempfile::TempDir,
}

/// Layers, mounts and users are root's.
fn is_root() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("not root: the image is not looked at");
    }
    root
}

static BUILT: LazyLock<Built> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // As the release profile does; what is in the image is the same but for the program.
    done(Command::new("strip").arg(env!("CARGO_BIN_EXE_owlpost")).arg("-o").arg(path("owlpost")));
    done(Command::new(root().join("deploy/image/build")).arg("--out").arg(path("out")).arg(path("owlpost")));
    unpack(&path("out/owlpost.oci.tar"), &path("oci"));
    std::fs::create_dir(path("root")).unwrap();
    for layer in manifest(&path("oci"))["layers"].as_array().unwrap() {
        unpack(&blob(&path("oci"), layer), &path("root"));
    }
    Built { folder }
});

impl Built {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn unpack(archive: &Path, into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    done(Command::new("tar").arg("-xpf").arg(archive).arg("-C").arg(into));
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(oci: &Path, descriptor: &Value) -> PathBuf {
    oci.join("blobs/sha256").join(descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap())
}

fn manifest(oci: &Path) -> Value {
    json(&blob(oci, &json(&oci.join("index.json"))["manifests"][0]))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_same_input_gives_the_same_image_and_tarball() {
    if !is_root() {
        return;
    }
    let build = |umask: &str| {
        let out = tempfile::tempdir().unwrap();
        // Any program will do, here a small one.
        let script = format!("umask {umask} && exec \"$0\" --out \"$1\" /bin/true");
        done(Command::new("bash").args(["-c", &script]).arg(root().join("deploy/image/build")).arg(out.path()));
        let mut made = Vec::new();
        files(out.path(), &mut made);
        made.sort();
        let read = |path: PathBuf| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap());
        made.into_iter().map(read).collect::<Vec<_>>()
    };
    let (first, second) = (build("022"), build("077"));
    assert_eq!(first.len(), 5);
    for ((name, first), (_, second)) in first.iter().zip(&second) {
        assert!(first == second, "{name:?} differs");
    }
}

#[test]
fn the_image_says_who_runs_and_what() {
    if !is_root() {
        return;
    }
    let oci = BUILT.path("oci");
    let config = json(&blob(&oci, &manifest(&oci)["config"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/bin/owlpost"]));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    // The chart runs it as the same user.
    let documents = template("laptop", &[]);
    let security = &pod(named(&documents, "Deployment", "owlpost")).unwrap()["securityContext"];
    let user = format!("{}:{}", security["runAsUser"], security["runAsGroup"]);
    assert_eq!(config["config"]["User"], user);
    let digest = std::fs::read_to_string(BUILT.path("out/digest")).unwrap();
    assert_eq!(json(&oci.join("index.json"))["manifests"][0]["digest"], digest.trim());
}

#[test]
fn there_is_nothing_in_it_that_the_program_does_not_need() {
    if !is_root() {
        return;
    }
    let root = BUILT.path("root");
    let mut there = Vec::new();
    files(&root, &mut there);
    let (mut programs, mut beside) = (Vec::new(), 0);
    for path in &there {
        let meta = std::fs::symlink_metadata(path).unwrap();
        assert_eq!(meta.mode() & 0o6022, 0, "{}: changes user, or others may write it", path.display());
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", path.display());
        let inside = path.strip_prefix(&root).unwrap().to_str().unwrap();
        if meta.permissions().mode() & 0o111 != 0 && !inside.contains(".so") {
            programs.push(inside.to_owned());
        }
        if inside != "usr/bin/owlpost" {
            beside += meta.len();
        }
    }
    assert_eq!(programs, ["usr/bin/owlpost"], "no shell, nothing else to run");
    // The program is a debug build here, and counts as the largest that a release build may be.
    assert!(include_str!("../bench/run.py").contains(r#""release binary", f"{size:.1f} MB", "< 40 MB", size < 40"#));
    let (largest, whole) = (40 * 1024 * 1024, 60_000_000);
    assert!(beside + largest < whole, "{beside} beside the program: an image of {}", beside + largest);
    assert!(include_str!("../../deploy/README.md").contains("Under 60 MB, no shell."));
    assert!(beside < 8_000_000, "{beside}");
    assert!(there.len() < 30, "{there:?}");
    assert_eq!(std::fs::metadata(root.join("data")).unwrap().uid(), 65_532);
    let authorities = std::fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(authorities.matches("BEGIN CERTIFICATE").count() > 100);
}

#[test]
fn its_parts_and_their_licences_are_told() {
    if !is_root() {
        return;
    }
    let docs = BUILT.path("root/usr/share/doc/owlpost");
    let parts = json(&docs.join("owlpost.cdx.json"));
    assert_eq!(parts["bomFormat"], "CycloneDX");
    assert_eq!(parts["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let components = parts["components"].as_array().unwrap();
    let has = |name: &str| components.iter().any(|part| part["name"] == name);
    for name in ["tokio", "rdkafka-sys", "openssl-src", "libsqlite3-sys", "aws-sdk-sesv2", "libc6", "ca-certificates"] {
        assert!(has(name), "{name}");
    }
    for name in ["insta", "proptest", "serde_yaml_ng"] {
        assert!(!has(name), "{name} is of the tests only");
    }
    let licences = std::fs::read_to_string(docs.join("LICENSES.txt")).unwrap();
    for part in components {
        let crate_ = part["purl"].as_str().unwrap().starts_with("pkg:cargo/");
        assert!(!crate_ || part["licenses"].is_array(), "{} has no licence", part["name"]);
        let line = format!("  {} {}", part["name"].as_str().unwrap(), part["version"].as_str().unwrap());
        assert!(licences.contains(&line), "{line}");
    }
    assert!(licences.contains("Permission is hereby granted, free of charge"));
    for package in ["libc6", "libgcc-s1", "ca-certificates"] {
        assert!(BUILT.path("root/usr/share/doc").join(package).join("copyright").exists(), "{package}");
    }
}

#[test]
fn the_tarball_has_the_program_and_files_to_start_from() {
    if !is_root() {
        return;
    }
    let name = format!("owlpost-{}-linux-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let into = tempfile::tempdir().unwrap();
    unpack(&BUILT.path("out").join(format!("{name}.tar.gz")), into.path());
    let folder = into.path().join(&name);
    let said =
        done(Command::new(folder.join("owlpost")).args(["check", "-c", "config/local.toml"]).current_dir(&folder));
    assert!(said.contains("config/local.toml"), "{said}");
    for file in ["LICENSE", "LICENSES.txt", "owlpost.cdx.json", "config/owlpost.toml"] {
        assert!(folder.join(file).exists(), "{file}");
    }
}

/// The image as a pod has it: read only, an ordinary user without any capability, the pod's files and environment.
struct Pod {
    child: Child,
    port: u16,
    /// `/data`.
    data: tempfile::TempDir,
}

/// `$0` is the image's root, `$1` the volume; mounts end with the process.
const ENTER: &str = r#"set -e
mount --bind "$0" "$0"
mount -o remount,ro,bind "$0"
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
mount --bind "$1" "$0/data"
root=$0
shift
exec chroot --userspec=65532:65532 "$root" /usr/bin/owlpost "$@""#;

/// A copy of the image's root for one test, with the pod's files where the kubelet would put them.
fn furnished() -> (tempfile::TempDir, std::collections::BTreeMap<String, String>) {
    let documents = template("laptop", &[]);
    let pod = pod(named(&documents, "Deployment", "owlpost")).unwrap();
    let container = &pod["containers"][0];
    let folder = tempfile::tempdir().unwrap();
    done(Command::new("cp").arg("-a").arg(BUILT.path("root/.")).arg(folder.path()));
    // The container's user has to pass it.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(folder.path().join("proc")).unwrap();
    for (path, text) in mounted(&documents, pod, container) {
        let path = folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut env = environment(container);
    env.insert("OWLPOST__HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned());
    env.insert("OWLPOST__ROUTE__APPROVALS__CADENCE".to_owned(), "{}".to_owned());
    (folder, env)
}

fn enter(image: &Path, env: &std::collections::BTreeMap<String, String>, data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(env);
    command.args(["--no-new-privs", "unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER]);
    command.arg(image).arg(data).args(args);
    command
}

fn volume() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    chown(data.path(), Some(65_532), Some(65_532)).unwrap();
    data
}

impl Pod {
    fn start(image: &Path, env: &std::collections::BTreeMap<String, String>) -> Pod {
        let data = volume();
        let mut child = enter(image, env, data.path(), &["run"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let port = loop {
            let Some(Ok(line)) = lines.next() else {
                child.wait().unwrap();
                panic!("it did not become ready:\n{said}");
            };
            said = format!("{said}{line}\n");
            // Where nobody looks it is JSON.
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            let listen = line["listen"].as_str().or_else(|| line["fields"]["listen"].as_str());
            if let Some(listen) = listen {
                break listen.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Pod { child, port, data }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n"))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_laptops_pod_takes_an_event_and_writes_a_mail_in_the_image() {
    if !is_root() {
        return;
    }
    let (image, env) = furnished();
    let mut pod = Pod::start(image.path(), &env);
    // What the probes and the monitor of the manifests ask.
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = pod.get(path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let event = r#"{"specversion":"1.0","id":"joe-readers","source":"zms/prod","type":"io.athenz.membership.requested.v1","data":{"domain":"sports","collection":{"kind":"role","name":"readers"},"member":"user.joe","change":"add","requester":"user.joe"}}"#;
    let post = |token: &str| {
        format!(
            "POST /v1/events HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/cloudevents+json\r\nContent-Length: {}\r\n\r\n{event}",
            event.len()
        )
    };
    assert!(pod.ask(&post("wrong")).starts_with("HTTP/1.1 401"), "the Secret's token is asked for");
    let answer = pod.ask(&post("a-secret"));
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains(r#""accepted":1"#), "{answer}");
    let outbox = pod.data.path().join("outbox");
    let mail = until("the mail", || {
        let mut mails = std::fs::read_dir(&outbox).ok()?.map(|entry| entry.unwrap().path());
        mails.find(|path| path.extension().is_some_and(|e| e == "eml"))
    });
    assert!(std::fs::read_to_string(mail).unwrap().contains("To: alice@example.com"), "from the ConfigMap of people");
    assert_eq!(std::fs::metadata(pod.data.path().join("owlpost.db")).unwrap().uid(), 65_532);
    // As by kubectl exec: the same program in the same room.
    let status = done(&mut enter(image.path(), &env, pod.data.path(), &["status", "--json"]));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["ledger"]["items"], 1);
    // As a kubelet ends it.
    done(Command::new("kill").args(["-TERM", &pod.child.id().to_string()]));
    let ended = until("the end", || pod.child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}

#[test]
fn nothing_can_be_written_but_the_volume() {
    if !is_root() {
        return;
    }
    let (image, env) = furnished();
    let data = volume();
    let out = enter(image.path(), &env, data.path(), &["demo", "--dir", "/etc/demo"]).output().unwrap();
    assert!(!out.status.success());
    assert!(text(&out.stderr).contains("Read-only file system"), "{}", text(&out.stderr));
}
