//! An emulator of AWS that others wrote (ministack): SES, STS and more on one port. `tests/run` sets it up with the sink.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{get, until};
use crate::sink::python;

/// The emulator, on a port of this machine alone.
pub struct Emulator {
    child: Child,
    pub address: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Emulator {
    pub fn start(folder: &Path) -> Emulator {
        let program = python().with_file_name("ministack");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.join("ministack.log")).unwrap();
        let mut child = Command::new(program)
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("IOT_MTLS_ENABLED", "0")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        until("the SES emulator", || {
            assert!(child.try_wait().unwrap().is_none(), "the SES emulator ended");
            get(&address, "/_ministack/ses/messages").ok().filter(|(status, _)| *status == 200)
        });
        Emulator { child, address }
    }

    pub fn mails(&self) -> Vec<serde_json::Value> {
        let (_, body) = get(&self.address, "/_ministack/ses/messages").unwrap();
        let found: serde_json::Value = serde_json::from_str(&body).unwrap();
        let accounts = found["messages"].as_object().unwrap();
        accounts.values().flat_map(|mails| mails.as_array().unwrap().clone()).collect()
    }
}
