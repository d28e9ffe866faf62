//! The registry client against a TLS server that asks for a certificate: `openssl s_server` and certificates made here.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use firn::source::{Access, Registry};

/// A folder with authorities and certificates in PEM.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// Two authorities, `ca` and `other`; of the first a server's certificate and clients' ones that is good and one that
    /// has expired; of the second a client's.
    fn new() -> Certificates {
        let made = Certificates { folder: tempfile::tempdir().unwrap() };
        for authority in ["ca", "other"] {
            let (key, pem) = (made.path(&format!("{authority}.key")), made.path(&format!("{authority}.pem")));
            let subject = format!("/CN=test {authority}");
            openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
                .args(["-subj", &subject, "-addext", "keyUsage=critical,keyCertSign", "-keyout"])
                .arg(key)
                .arg("-out")
                .arg(pem)
                .run();
        }
        let server = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n";
        let client = "extendedKeyUsage=clientAuth\n";
        for (name, authority, days, extensions) in [
            ("server", "ca", "2", server),
            ("stale", "ca", "-1", server),
            ("good", "ca", "2", client),
            ("expired", "ca", "-1", client),
            ("foreign", "other", "2", client),
        ] {
            made.sign(name, authority, days, extensions);
        }
        made
    }

    fn sign(&self, name: &str, authority: &str, days: &str, extensions: &str) {
        let (key, request, extra) = (self.path(&format!("{name}.key")), self.path("request"), self.path("extensions"));
        std::fs::write(&extra, extensions).unwrap();
        openssl(&["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"])
            .arg("-keyout")
            .arg(key)
            .arg("-out")
            .arg(&request)
            .run();
        openssl(&["x509", "-req", "-CAcreateserial", "-days", days, "-in"])
            .arg(request)
            .arg("-CA")
            .arg(self.path(&format!("{authority}.pem")))
            .arg("-CAkey")
            .arg(self.path(&format!("{authority}.key")))
            .arg("-extfile")
            .arg(extra)
            .arg("-out")
            .arg(self.path(&format!("{name}.pem")))
            .run();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// What a client has that trusts `authority` and presents the certificate of this name.
    fn access(&self, authority: Option<&str>, identity: Option<&str>) -> Access {
        let identity = identity.map(|name| self.text(&format!("{name}.pem")) + &self.text(&format!("{name}.key")));
        let authorities = authority.map(|name| self.text(&format!("{name}.pem")).into_bytes());
        Access { login: None, authorities, identity: identity.map(Into::into) }
    }
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

trait Run {
    fn run(&mut self);
}

impl Run for Command {
    fn run(&mut self) {
        let done = self.stdin(Stdio::null()).output().expect("the program openssl");
        assert!(done.status.success(), "{self:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A registry with one schema, which answers only those who present a certificate of `ca`.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(certificates: &Certificates, own: &str, version: &str) -> Server {
        let root = certificates.path("root");
        std::fs::create_dir_all(root.join("schemas/ids")).unwrap();
        std::fs::write(root.join("schemas/ids/1"), r#"{"schema":"\"long\""}"#).unwrap();
        let pem = |name: &str| certificates.path(name).display().to_string();
        let mut process = openssl(&["s_server", "-accept", "127.0.0.1:0", version, "-WWW", "-Verify", "1"])
            .args(["-verify_return_error", "-CAfile", &pem("ca.pem"), "-cert", &pem(&format!("{own}.pem"))])
            .args(["-key", &pem(&format!("{own}.key"))])
            .current_dir(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program openssl");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port =
            lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok()).unwrap();
        // It stops when nobody reads what it prints.
        std::thread::spawn(move || lines.for_each(drop));
        Server { process, port }
    }

    async fn ask(&self, access: Access) -> Result<String, String> {
        let registry = Registry::new(&format!("https://localhost:{}", self.port), access).unwrap();
        registry.schema(1).await.map(|schema| schema.text.text.to_string()).map_err(|e| e.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_registry_that_asks_for_a_certificate_gets_it_or_the_error_says_what_to_do() {
    let certificates = Certificates::new();
    for version in ["-tls1_3", "-tls1_2"] {
        let server = Server::start(&certificates, "server", version);
        let good = server.ask(certificates.access(Some("ca"), Some("good"))).await;
        assert_eq!(good.as_deref(), Ok("\"long\""), "{version}");
        for (authority, identity, advice) in [
            (Some("ca"), None, "set schema_registry.tls.certificate and schema_registry.tls.key"),
            (Some("ca"), Some("expired"), "does not accept the certificate of schema_registry.tls.certificate"),
            (Some("ca"), Some("foreign"), "does not accept the certificate of schema_registry.tls.certificate"),
            (None, Some("good"), "set schema_registry.tls.ca to the authority"),
            (Some("other"), Some("good"), "set schema_registry.tls.ca to the authority"),
        ] {
            let said = server.ask(certificates.access(authority, identity)).await.unwrap_err();
            assert!(said.contains(advice), "{version}, {authority:?}, {identity:?}: {said}");
            assert!(!said.contains("PRIVATE KEY"), "{said}");
        }
        let again = server.ask(certificates.access(Some("ca"), Some("good"))).await;
        assert_eq!(again.as_deref(), Ok("\"long\""), "{version}");
    }
    let stale = Server::start(&certificates, "stale", "-tls1_3");
    let said = stale.ask(certificates.access(Some("ca"), Some("good"))).await.unwrap_err();
    assert!(said.contains("the registry's own certificate has expired"), "{said}");
}
