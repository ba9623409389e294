//! The kubelet's own list of pods, which alone tells init containers and sidecars from the others: no runtime keeps that.
//!
//! It is asked only where somebody says where it listens, since anybody may listen on a port that the kubelet does not use: plain HTTP, as on
//! its read-only port. A thread of its own waits for the answer, and there is one only while an answer is outstanding.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::formats::{self, Known};
use super::root::Problem;
use crate::model::cgroup::identity::Names as Told;
use crate::model::text;

/// Longest wait for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer answer is refused: 500 pods take some 5 MB.
const LIMIT: u64 = 64 << 20;
/// Pause between two questions.
const PAUSE: Duration = Duration::from_secs(10);
/// The kubelet knows of a container somewhat later than its cgroup is there: so long it is asked about one that is new.
const LATE: Duration = Duration::from_secs(60);

/// What the kubelet told, and when it is asked again.
#[derive(Debug)]
pub(super) struct Kubelet {
    /// `host:port`.
    address: String,
    known: Known,
    problem: Option<Problem>,
    answer: Option<Receiver<Result<Known, String>>>,
    asked: Option<Instant>,
    /// When somebody was seen for the first time.
    newest: Option<Instant>,
}

impl Kubelet {
    /// Asks nothing yet. The URL is one that the configuration accepts, `http://host:port`.
    pub(super) fn new(url: &str) -> Kubelet {
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Kubelet { address, known: Known::new(), problem: None, answer: None, asked: None, newest: None }
    }

    /// Says that somebody new is in a pod.
    pub(super) fn meet(&mut self, now: Instant) {
        self.newest = Some(now);
    }

    /// Takes an answer that has come, and asks when it is time to; whether there is news.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let came = match self.answer.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => None,
            Some(Ok(answer)) => Some(answer),
            Some(Err(TryRecvError::Disconnected)) => Some(Err("the thread that asks broke down".into())),
        };
        if let Some(answer) = came {
            self.answer = None;
            let problem = |what: String| Problem(format!("the kubelet at {}: {what}", text::escape(self.address.as_bytes())));
            (self.known, self.problem) = match answer {
                Ok(known) => (known, None),
                Err(what) => (std::mem::take(&mut self.known), Some(problem(what))),
            };
            return self.problem.is_none();
        }
        let is_wanted = self.newest.is_some_and(|newest| now <= newest + LATE);
        if is_wanted && self.answer.is_none() && self.asked.is_none_or(|asked| now >= asked + PAUSE) {
            self.asked = Some(now);
            self.answer = Some(ask(self.address.clone()));
        }
        false
    }

    /// What is known of somebody, with what the kubelet told where that is more.
    pub(super) fn complete(&self, id: &str, told: Option<Told>) -> Option<Told> {
        let Some(known) = self.known.get(id).cloned() else { return told };
        let Some(told) = told else { return Some(known) };
        Some(Told {
            container: told.container.or(known.container),
            role: told.role.or(known.role),
            image: told.image.or(known.image),
            pod: told.pod.or(known.pod),
            namespace: told.namespace.or(known.namespace),
            ..told
        })
    }

    /// Why the last question has no answer.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }
}

fn ask(address: String) -> Receiver<Result<Known, String>> {
    let (sender, receiver) = mpsc::channel();
    let asking = move || {
        let answer = fetch(&address).and_then(|body| formats::pod_list(&body).map_err(|malformed| malformed.to_string()));
        // Nobody waits any more when observer ends.
        let _ = sender.send(answer);
    };
    // Without a thread the sender is gone, which the next poll sees.
    let _ = std::thread::Builder::new().name("kubelet".into()).spawn(asking);
    receiver
}

/// The body of the answer. HTTP/1.0, so that the body ends with the connection.
fn fetch(address: &str) -> Result<Vec<u8>, String> {
    let said = |error: io::Error| text::escape(error.to_string().as_bytes()).into_owned();
    let place = address.to_socket_addrs().map_err(said)?.next().ok_or("has no address")?;
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE).map_err(said)?;
    stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(said)?;
    let request = format!("GET /pods HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(said)?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer).map_err(said)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no answer in HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut status = head.lines().next().unwrap_or_default().splitn(3, ' ');
    match (status.next(), status.next(), status.next()) {
        (Some(version), Some("200"), _) if version.starts_with("HTTP/1.") => {}
        (Some(version), Some(code), reason) if version.starts_with("HTTP/1.") => {
            return Err(text::escape(format!("{code} {}", reason.unwrap_or_default()).as_bytes()).into_owned());
        }
        _ => return Err("no answer in HTTP".into()),
    }
    if answer.len() as u64 >= LIMIT {
        return Err(format!("its answer is larger than {} MiB", LIMIT >> 20));
    }
    answer.drain(..end + 4);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one question; gives the address, and what was asked.
    fn serve(answer: &'static str) -> (String, Receiver<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            sender.send(String::from_utf8_lossy(&asked[..length]).into_owned()).unwrap();
        });
        (url, receiver)
    }

    /// Asks and waits for the answer; whether there was one.
    fn asked(kubelet: &mut Kubelet, now: Instant) -> bool {
        assert!(!kubelet.poll(now) && kubelet.answer.is_some(), "nobody waits");
        while kubelet.answer.is_some() {
            if kubelet.poll(now) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn it_is_asked_once_somebody_is_there_and_then_seldom() {
        let (url, request) = serve("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"items\": []}");
        let mut kubelet = Kubelet::new(&url);
        let now = Instant::now();
        assert!(!kubelet.poll(now) && kubelet.answer.is_none());
        kubelet.meet(now);
        assert!(asked(&mut kubelet, now));
        assert!(request.recv().unwrap().starts_with("GET /pods HTTP/1.0\r\nHost: 127.0.0.1:"));
        let asks = |kubelet: &mut Kubelet, seconds| {
            kubelet.poll(now + Duration::from_secs(seconds));
            kubelet.answer.take().is_some()
        };
        let when: Vec<u64> = (1..300).filter(|second| asks(&mut kubelet, *second)).collect();
        assert_eq!(when, [10, 20, 30, 40, 50, 60], "as long as it may be late");
        kubelet.meet(now + Duration::from_secs(300));
        assert!(asks(&mut kubelet, 300));
    }

    #[test]
    fn what_it_says_adds_to_what_is_known() {
        let list = r#"{"items": [{"metadata": {"name": "web-0", "namespace": "shop", "uid": "0b-1"},
            "spec": {"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]},
            "status": {"initContainerStatuses": [{"name": "proxy", "containerID": "containerd://4f", "image": "proxy:1"}]}}]}"#;
        let (url, _request) = serve(format!("HTTP/1.1 200 OK\r\n\r\n{list}").leak());
        let mut kubelet = Kubelet::new(&url);
        let now = Instant::now();
        kubelet.meet(now);
        assert!(asked(&mut kubelet, now));
        let words = |told: Option<Told>| {
            let told = told?;
            let texts = [told.container, told.namespace, told.pod, told.image].into_iter().flatten().map(|text| text.to_string());
            Some(texts.chain(told.role.map(|role| role.name().into())).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(words(kubelet.complete("4f", None)).as_deref(), Some("proxy shop web-0 proxy:1 sidecar"));
        assert_eq!(words(kubelet.complete("0b-1", None)).as_deref(), Some("shop web-0"));
        let known = Told { container: Some("own".into()), image: Some("full/proxy:1".into()), ..Told::default() };
        assert_eq!(words(kubelet.complete("4f", Some(known.clone()))).as_deref(), Some("own shop web-0 full/proxy:1 sidecar"));
        assert_eq!(words(kubelet.complete("9d", Some(known))).as_deref(), Some("own full/proxy:1"));
        assert_eq!(kubelet.complete("9d", None), None);
    }

    #[test]
    fn what_went_wrong_is_one_sentence() {
        let said = |url: &str| {
            let mut kubelet = Kubelet::new(url);
            kubelet.meet(Instant::now());
            assert!(!asked(&mut kubelet, Instant::now()));
            let Problem(problem) = kubelet.problem().unwrap();
            problem.replace(url.trim_start_matches("http://"), "ADDRESS")
        };
        let check = |answer, expected: &str| assert_eq!(said(&serve(answer).0), format!("the kubelet at ADDRESS: {expected}"));
        check("HTTP/1.1 403 Forb\x1bidden\r\n\r\nno", r"403 Forb\x1bidden");
        check("HTTP/1.1 200 OK\r\n\r\n{\"items\": 7}", "invalid type: integer `7`, expected a sequence at line 1 column 11");
        check("SSH-2.0-OpenSSH\r\n\r\n", "no answer in HTTP");
        check("", "no answer in HTTP");
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let closed = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(said(&closed), "the kubelet at ADDRESS: Connection refused (os error 111)");
    }
}
