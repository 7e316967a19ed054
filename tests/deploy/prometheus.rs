//! A real Prometheus with the real rules, and `promtool`: Debian's package, as `tests/run` sets it up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::ports::free_ports;
use crate::process::until;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The program of this name: of the system, else of the package that `tests/run` unpacked.
pub fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push(target.join("servers/prometheus/usr/bin"));
    let found = places.into_iter().map(|place| place.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}: tests/run deploy sets it up"))
}

pub fn promtool(args: &[&str]) -> Output {
    Command::new(program("promtool")).args(args).current_dir(root()).stdin(Stdio::null()).output().unwrap()
}

/// Both of what it said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A server with our rules, looked at each second; killed when dropped.
pub struct Prometheus {
    child: Child,
    address: String,
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// `scrapes`: the address of a worker, if any.
    pub fn start(scrapes: Option<&str>) -> Prometheus {
        Prometheus::with(scrapes, read("deploy/prometheus/owlpost.rules.yaml"))
    }

    /// Its alerts fire at once, instead of after minutes and hours.
    pub fn impatient(scrapes: &str) -> Prometheus {
        let rules = read("deploy/prometheus/owlpost.rules.yaml");
        let at_once = |line: &&str| !line.trim_start().starts_with("for: ");
        Prometheus::with(Some(scrapes), rules.lines().filter(at_once).map(|line| format!("{line}\n")).collect())
    }

    fn with(scrapes: Option<&str>, rules: String) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let rules = rules.replace("interval: 30s", "interval: 1s");
        fs::write(folder.path().join("rules.yaml"), rules).unwrap();
        let targets = scrapes.map_or("[]".to_owned(), |address| format!("['{address}']"));
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\nscrape_configs:\n- job_name: \
             mail/owlpost\n  static_configs: [{{targets: {targets}, labels: {{namespace: mail, pod: owlpost-1}}}}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let [port] = free_ports();
        let address = format!("127.0.0.1:{port}");
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program("prometheus"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut server = Prometheus { child, address, runtime, folder };
        until("Prometheus to be ready", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("Prometheus ended with {status}: {}", server.log());
            }
            server.ask("/-/ready", &[]).filter(|(status, _)| *status == 200)
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<(u16, String)> {
        let url = reqwest::Url::parse_with_params(&(self.url() + path), query).unwrap();
        self.runtime.block_on(async {
            let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })
    }

    /// What the expression gives now: the results, or why it is no expression.
    pub fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        let (_, text) = self.ask("/api/v1/query", &[("query", expr)]).expect("Prometheus answers");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        match answer["data"]["result"].take() {
            Value::Array(results) => Ok(results),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Every rule as the server read it.
    pub fn rules(&self) -> Vec<Value> {
        let (_, text) = self.ask("/api/v1/rules", &[]).expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}
