import Alerting
import ArgumentParser
import Cluster
import Comparison
import Fetch
import Foundation
import PromQL
import Recording
import Remote
import Storage
import StrictYAML
import UpgradeWatch

/// The exit codes, as documented in docs/exit-codes.md (after sysexits.h).
enum ExitStatus: Int32 {
    case ok = 0
    case fail = 1
    case inconclusive = 2
    case blind = 3
    case usage = 64
    case badData = 65
    case unavailable = 69
    case fault = 70
    case configuration = 78

    /// promtool's, of `check rules --lint-fatal`.
    static let lint = ExitCode(3)

    init(_ verdict: Verdict) {
        switch verdict {
        case .pass: self = .ok
        case .fail: self = .fail
        case .inconclusive: self = .inconclusive
        case .blind: self = .blind
        }
    }

    var code: ExitCode { ExitCode(rawValue) }

    /// The code for an error that ended a command.
    init(_ error: any Error) {
        switch error {
        case let error as StoreError:
            switch error.code {
            case .notFound, .locked: self = .unavailable
            case .newerVersion, .unreadable: self = .badData
            case .full, .failed: self = .unavailable
            }
        case is RecordingError: self = .badData
        case is YAMLProblems: self = .badData
        case is InputError, is SeriesImport.BadLine: self = .badData
        case is FetchError, is RemoteError: self = .unavailable
        case let error as PromQLError: self = error.kind == .badData ? .badData : .unavailable
        case is UnknownUpgrade, is UnknownBatch, is DirectoryInUse: self = .usage
        case is KubernetesConfigError: self = .configuration
        case is ServerError: self = .unavailable
        default: self = .fault
        }
    }
}

/// Runs a command's body: an error is told on standard error, and becomes the exit code.
///
/// - Parameter yaml: the code for faults in YAML files: configuration where the file is one.
func reporting<T>(yaml: ExitStatus = .badData, _ body: () async throws -> T) async throws -> T {
    do {
        return try await body()
    } catch let error as ExitCode {
        throw error
    } catch {
        Output.error("\(error)")
        throw (error is YAMLProblems ? yaml : ExitStatus(error)).code
    }
}

/// An answer of the service that is no answer to the question.
struct ServerError: Error, CustomStringConvertible {
    var description: String
}
