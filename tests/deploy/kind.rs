//! `deploy/kind` without Docker: the tools that need it are stand-ins that write down how they are called, and helm renders
//! what it is to install.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::tools::{documents, done, named, root, tool};

/// A stand-in for a tool: a line in `calls`, then its own part.
fn stand_in(folder: &Path, name: &str, part: &str) {
    let path = folder.join(name);
    let text = format!("#!/bin/sh\nprintf '%s\\n' \"{name} $*\" >>\"$CALLS\"\n{part}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn one_command_builds_loads_installs_and_sends_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, calls) = (folder.path().join("bin"), folder.path().join("calls"));
    std::fs::create_dir(&bin).unwrap();
    // The script finds its repository by its own place: a copy with what it uses.
    let repository = folder.path().join("repository");
    std::fs::create_dir_all(repository.join("deploy/image")).unwrap();
    for file in ["Cargo.toml", "deploy/kind"] {
        std::fs::copy(root().join(file), repository.join(file)).unwrap();
    }
    for place in ["deploy/helm", "deploy/values"] {
        std::os::unix::fs::symlink(root().join(place), repository.join(place)).unwrap();
    }
    stand_in(&repository.join("deploy/image"), "build", "");
    for (name, part) in [
        ("cargo", ""),
        ("docker", ""),
        ("kind", ""),
        // Nothing is there yet; a Secret's value is read at last.
        ("kubectl", "case \"$*\" in *jsonpath*) printf dG9rZW4= ;; *' get '*) exit 1 ;; esac"),
        ("curl", "cat >>\"$CALLS\""),
    ] {
        stand_in(&bin, name, part);
    }
    let render = r#"shift 4
exec "$HELM" template owlpost deploy/helm/owlpost -n owlpost "$5" "$6" >"$CALLS.yaml""#;
    // upgrade --install owlpost CHART --kube-context C -n N -f FILE --wait --timeout T
    stand_in(&bin, "helm", render);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut up = Command::new(repository.join("deploy/kind"));
    done(up.env("PATH", path).env("CALLS", &calls).env("HELM", tool("helm")));
    let called = std::fs::read_to_string(&calls).unwrap();
    let wanted = [
        "cargo build --release --locked",
        "build --context target/kind target/release/owlpost",
        "docker build -q -f deploy/image/Containerfile -t owlpost:",
        "kind create cluster --name owlpost",
        "kind load docker-image owlpost:",
        "create namespace owlpost",
        "create secret generic owlpost --from-literal=token=",
        "helm upgrade --install owlpost deploy/helm/owlpost",
        "rollout status deployment/owlpost",
        "header = \"Authorization: Bearer token\"",
        "-- owlpost digests list",
    ];
    let places: Vec<usize> =
        wanted.iter().map(|words| called.find(words).unwrap_or_else(|| panic!("{words}: {called}"))).collect();
    assert!(places.is_sorted(), "{called}");
    assert!(
        !called.lines().any(|line| line.starts_with("curl") && line.contains("Bearer")),
        "no token in a process list"
    );
    let rendered = documents(&std::fs::read_to_string(format!("{}.yaml", calls.display())).unwrap());
    named(&rendered, "Deployment", "owlpost");
    // What is sent is an event.
    let data = called.lines().find_map(|line| line.strip_prefix("data = ")).unwrap();
    let event: String = serde_json::from_str(data).unwrap();
    let file = folder.path().join("event.json");
    std::fs::write(&file, event).unwrap();
    done(crate::tools::owlpost().args(["preview", "approvals", "--events"]).arg(&file));
}
