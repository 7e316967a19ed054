//! The modules, read by OpenTofu with the AWS provider's schema (`tests/deploy/aws`): names, types and blocks are right, and
//! each module's own tests hold. What only AWS knows (whether it takes a value) is not seen here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::prometheus::{root, said};

/// As `tests/run` names what it builds.
const PROVIDER: &str = "terraform-provider-aws_v6.25.0";
const VERSION: &str = "6.25.0";
/// As OpenTofu calls this machine.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" };

fn tools() -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("servers/tofu");
    assert!(tools.join("tofu").is_file(), "there is no OpenTofu: tests/run deploy builds it");
    tools
}

/// A copy of deploy/terraform, and a place from which OpenTofu takes the provider.
struct Bench {
    folder: PathBuf,
}

impl Bench {
    /// The one that all tests share: they work in different folders of it.
    fn shared() -> &'static Bench {
        static SHARED: OnceLock<Bench> = OnceLock::new();
        SHARED.get_or_init(|| {
            // A static is never dropped: a temporary folder would stay for ever, this one only until the next run.
            let bench = Bench { folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("terraform") };
            let _ = fs::remove_dir_all(&bench.folder);
            fs::create_dir_all(&bench.folder).unwrap();
            fs::write(bench.folder.join("config"), "").unwrap();
            let copied = Command::new("cp").arg("-r").arg(root().join("deploy/terraform")).arg(&bench.folder).status();
            assert!(copied.unwrap().success());
            // Where OpenTofu looks for a provider that is named without a host is its own affair: it says so.
            let told = said(&bench.tofu("modules/gke-oidc", &["providers", "-no-color"]));
            let address = told.split("provider[").nth(1).and_then(|rest| rest.split(']').next()).expect(&told);
            let place = bench.folder.join("mirror").join(address).join(VERSION).join(PLATFORM);
            fs::create_dir_all(&place).unwrap();
            fs::copy(tools().join(PROVIDER), place.join(PROVIDER)).unwrap();
            let mirror = bench.folder.join("mirror");
            let config = format!("provider_installation {{ filesystem_mirror {{ path = {:?} }} }}\n", mirror.display());
            fs::write(bench.folder.join("config"), config).unwrap();
            bench
        })
    }

    fn tofu(&self, at: &str, args: &[&str]) -> Output {
        Command::new(tools().join("tofu"))
            .args(args)
            .current_dir(self.folder.join("terraform").join(at))
            .env("TF_CLI_CONFIG_FILE", self.folder.join("config"))
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn passes(&self, at: &str, args: &[&str]) -> String {
        let output = self.tofu(at, args);
        assert!(output.status.success(), "{at}: tofu {}: {}", args.join(" "), said(&output));
        said(&output)
    }
}

fn folders(of: &str) -> Vec<String> {
    let found = fs::read_dir(root().join("deploy/terraform").join(of)).unwrap();
    let mut names: Vec<String> =
        found.map(|entry| format!("{of}/{}", entry.unwrap().file_name().to_str().unwrap())).collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    names
}

#[test]
#[ignore = "OpenTofu takes minutes to compile: tests/run deploy"]
fn every_file_is_formatted() {
    let checked = Command::new(tools().join("tofu"))
        .args(["fmt", "-check", "-recursive", "-no-color", "deploy/terraform"])
        .env_remove("TF_CLI_CONFIG_FILE")
        .current_dir(root())
        .output()
        .unwrap();
    assert!(checked.status.success(), "tofu fmt -recursive deploy/terraform would change: {}", said(&checked));
}

#[test]
#[ignore = "OpenTofu takes minutes to compile: tests/run deploy"]
fn every_example_is_valid_with_the_modules_that_it_uses() {
    let bench = Bench::shared();
    let mut used = String::new();
    for example in folders("examples") {
        bench.passes(&example, &["init", "-backend=false", "-input=false", "-no-color"]);
        bench.passes(&example, &["validate", "-no-color"]);
        used += &fs::read_to_string(root().join("deploy/terraform").join(&example).join("main.tf")).unwrap();
    }
    for module in folders("modules") {
        assert!(used.contains(&format!("\"../../{module}\"")), "no example shows {module}");
    }
}

#[test]
#[ignore = "OpenTofu takes minutes to compile: tests/run deploy"]
fn every_module_keeps_what_its_tests_promise() {
    let bench = Bench::shared();
    for module in folders("modules") {
        bench.passes(&module, &["init", "-backend=false", "-input=false", "-no-color"]);
        let said = bench.passes(&module, &["test", "-no-color"]);
        assert!(said.contains(" passed, 0 failed"), "{module}: {said}");
        assert!(!said.contains("\n0 passed"), "{module} has no test");
    }
}

/// The provider here is a stand-in: it must see what the real one would.
#[test]
#[ignore = "OpenTofu takes minutes to compile: tests/run deploy"]
fn a_misspelt_argument_a_wrong_type_and_a_missing_argument_are_seen() {
    let bench = Bench::shared();
    let wrong = [
        ("misspelt", "name = \"q\"\n  visibility_timeout = 60", "visibility_timeout"),
        ("type", "name = \"q\"\n  sqs_managed_sse_enabled = \"perhaps\"", "sqs_managed_sse_enabled"),
    ];
    for (name, arguments, told) in wrong {
        let at = format!("wrong-{name}");
        let folder = bench.folder.join("terraform").join(&at);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(root().join("deploy/terraform/modules/event-queue/versions.tf"), folder.join("versions.tf")).unwrap();
        fs::write(folder.join("main.tf"), format!("resource \"aws_sqs_queue\" \"q\" {{\n  {arguments}\n}}\n")).unwrap();
        bench.passes(&at, &["init", "-backend=false", "-input=false", "-no-color"]);
        let checked = bench.tofu(&at, &["validate", "-no-color"]);
        assert!(!checked.status.success() && said(&checked).contains(told), "{name}: {}", said(&checked));
    }
    let folder = bench.folder.join("terraform/wrong-missing");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(root().join("deploy/terraform/modules/event-queue/versions.tf"), folder.join("versions.tf")).unwrap();
    fs::write(folder.join("main.tf"), "resource \"aws_iam_role\" \"r\" {\n  name = \"r\"\n}\n").unwrap();
    bench.passes("wrong-missing", &["init", "-backend=false", "-input=false", "-no-color"]);
    let checked = bench.tofu("wrong-missing", &["validate", "-no-color"]);
    assert!(said(&checked).contains("assume_role_policy"), "{}", said(&checked));
}
