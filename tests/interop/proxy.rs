//! A proxy in front of an HTTP server of the stack, which does to requests what a network does on a bad day.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request on its way through.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// As they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Empty where there is none.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether it commits to a table of Iceberg's REST catalog.
    pub fn is_commit(&self) -> bool {
        self.method == "POST" && self.path.contains("/tables/")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Fate {
    /// It passes, and so does the answer.
    Pass,
    /// The server gets it; the client gets a closed connection.
    LoseAnswer,
    /// The server gets it; the client gets this status.
    AnswerWith(u16),
    /// The server gets it twice; the client gets the second answer.
    Repeat,
    /// The server does not get it; the client gets a closed connection.
    Drop,
    /// The server does not get it; the client gets this status and JSON.
    Refuse(u16, String),
    /// It passes, and what this makes of the answer's body is what the client gets.
    Edit(fn(&str) -> String),
}

/// Decides about requests, one after the other.
pub type Rule = Box<dyn FnMut(&Request) -> Fate + Send>;

/// A proxy on 127.0.0.1 that lives as long as this value.
pub struct Proxy {
    /// `http://127.0.0.1:port`, for whoever would speak to the server itself.
    pub url: String,
    port: u16,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy in front of `upstream` (`http://host:port`, perhaps with a path that stays in [`Proxy::url`]).
    pub fn start(upstream: &str, rule: Rule) -> Proxy {
        let rest = upstream.strip_prefix("http://").expect("a plain http server");
        let (address, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (stopped, rule, address) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(rule)), address.to_owned());
        let ends = Arc::clone(&stopped);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), rule, address) = (client, Arc::clone(&rule), address.clone()) else { continue };
                std::thread::spawn(move || drop(serve(client, &rule, &address)));
            }
        });
        Proxy { url: format!("http://127.0.0.1:{port}{path}"), port, stopped }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // wakes the thread up
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// One request per connection: whoever keeps connections open just opens another one.
fn serve(mut client: TcpStream, rule: &Mutex<Rule>, upstream: &str) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = read_request(&client)?;
    let fate = rule.lock().map_or(Fate::Drop, |mut rule| rule(&request));
    match fate {
        Fate::Pass => client.write_all(&forward(&request, upstream)?)?,
        Fate::LoseAnswer => drop(forward(&request, upstream)?),
        Fate::AnswerWith(status) => {
            forward(&request, upstream)?;
            let text = r#"{"error":{"message":"try later","type":"Unavailable","code":0}}"#;
            client.write_all(answer(status, text).as_bytes())?;
        }
        Fate::Repeat => {
            forward(&request, upstream)?;
            client.write_all(&forward(&request, upstream)?)?;
        }
        Fate::Drop => {}
        Fate::Edit(edit) => {
            let mut plain = request.clone();
            plain.headers.retain(|(name, _)| name != "accept-encoding");
            let text = String::from_utf8_lossy(&forward(&plain, upstream)?).into_owned();
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(502);
            client.write_all(answer(status, &edit(&unchunked(head, body))).as_bytes())?;
        }
        Fate::Refuse(status, body) => client.write_all(answer(status, &body).as_bytes())?,
    }
    client.shutdown(Shutdown::Both)
}

fn answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nETag: \"x\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A body as it was before it was sent in pieces.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || size > after.len() {
            break;
        }
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

fn read_request(client: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    if method.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    assert!(request.header("transfer-encoding").is_none(), "a body in chunks: {request:?}");
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    Ok(request)
}

fn forward(request: &Request, upstream: &str) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    server.set_read_timeout(Some(Duration::from_secs(60)))?;
    // The host stays what the client wrote: S3 requests are signed with it.
    let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.path);
    for (name, value) in &request.headers {
        if name != "connection" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    server.write_all(format!("{head}\r\n").as_bytes())?;
    server.write_all(&request.body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}
