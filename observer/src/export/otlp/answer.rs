//! What a receiver's answer means: OTLP specification, "Failures", "Throttling" and "Partial Success", for gRPC and HTTP.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::transport::chain;

/// A receiver that asks for more patience than this is asked again anyway.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What came of an attempt.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// All points were taken.
    Accepted,
    /// Some were rejected for good.
    Partial {
        /// How many.
        rejected: u64,
        /// Why, in the receiver's words.
        message: String,
    },
    /// Try again later.
    Retry(Failure),
    /// The same bytes will never be taken.
    Refused(Failure),
}

/// Why an attempt failed.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// For machines: `error.type`, of few values.
    pub kind: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// The pause that the receiver asks for.
    pub after: Option<Duration>,
    /// Somebody answered, and it was not the network that failed.
    pub answered: bool,
}

impl Failure {
    pub(super) fn unreachable(kind: &'static str, message: String) -> Failure {
        Failure { kind: Cow::Borrowed(kind), message, after: None, answered: false }
    }
}

/// Taken, wholly or in part. A message without rejected points is a warning that the specification allows.
pub(super) fn accepted(response: ExportMetricsServiceResponse) -> Outcome {
    match response.partial_success {
        Some(partial) if partial.rejected_data_points > 0 || !partial.error_message.is_empty() => Outcome::Partial {
            rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
            message: partial.error_message,
        },
        _ => Outcome::Accepted,
    }
}

pub(super) fn of_grpc(status: &Status) -> Outcome {
    // A status that was made here, of an error of the connection, has that error as its source.
    if let Some(error) = std::error::Error::source(status) {
        return Outcome::Retry(Failure::unreachable("connection", chain(error)));
    }
    let retry_info = status.get_details_retry_info();
    let failure = Failure {
        kind: Cow::Owned(format!("{:?}", status.code())),
        message: format!("{}: {}", status.code().description(), status.message()),
        after: retry_info.as_ref().and_then(|info| info.retry_delay).map(|pause| pause.min(LONGEST_PAUSE)),
        answered: true,
    };
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => {
            Outcome::Retry(failure)
        }
        // Only a receiver that says when is believed to recover.
        Code::ResourceExhausted if retry_info.is_some() => Outcome::Retry(failure),
        _ => Outcome::Refused(failure),
    }
}

pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if status.is_success() {
        return match ExportMetricsServiceResponse::decode(body) {
            Ok(response) => accepted(response),
            // The status counts: receivers exist that answer with JSON, or with words.
            Err(_) => Outcome::Accepted,
        };
    }
    let said = tonic_types::pb::Status::decode(body).map(|status| status.message).ok().filter(|message| !message.is_empty());
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let failure = Failure {
        kind: Cow::Owned(status.as_str().to_owned()),
        message: format!("{status}{}", said.map(|said| format!(": {said}")).unwrap_or_default()),
        after: after.and_then(|after| pause(after, SystemTime::now())),
        answered: true,
    };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Outcome::Retry(failure),
        _ => Outcome::Refused(failure),
    }
}

/// `Retry-After`: seconds, or a date.
fn pause(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = SystemTime::from(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
            date.duration_since(now).unwrap_or(Duration::ZERO)
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn grpc_codes() {
        let check = |code, retry: bool| {
            let outcome = of_grpc(&Status::new(code, "why"));
            assert_eq!(matches!(outcome, Outcome::Retry(_)), retry, "{code:?}: {outcome:?}");
        };
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted, Code::Cancelled, Code::OutOfRange, Code::DataLoss]
        {
            check(code, true);
        }
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::ResourceExhausted, Code::Unknown] {
            check(code, false);
        }
    }

    #[test]
    fn retry_info_makes_exhaustion_retryable() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1500)));
        let outcome = of_grpc(&Status::with_error_details(Code::ResourceExhausted, "full", details));
        assert!(matches!(&outcome, Outcome::Retry(failure) if failure.after == Some(Duration::from_millis(1500))), "{outcome:?}");
    }

    #[test]
    fn http_statuses() {
        let check = |status: u16, retry: bool| {
            let outcome = of_http(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"");
            assert_eq!(matches!(outcome, Outcome::Retry(_)), retry, "{status}: {outcome:?}");
        };
        [429, 502, 503, 504].into_iter().for_each(|status| check(status, true));
        [301, 400, 401, 404, 413, 500].into_iter().for_each(|status| check(status, false));
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), b""), Outcome::Accepted);
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), b"{}"), Outcome::Accepted);
    }

    #[test]
    fn retry_after() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 10);
        assert_eq!(pause("7", now), Some(Duration::from_secs(7)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT", now + Duration::from_secs(60)), Some(Duration::ZERO));
        assert_eq!(pause("999999", now), Some(LONGEST_PAUSE));
        assert_eq!(pause("soon", now), None);
    }
}
