import Foundation
import LogWatch
import Series

/// What `recording.json` says.
package struct RecordingManifest: Decodable, Sendable {
    package struct Target: Decodable, Sendable {
        package var job: String
        package var instance: String
        package var metricsPath: String
        package var node: String?
        package var file: String

        private enum CodingKeys: String, CodingKey {
            case job, instance, node, file
            case metricsPath = "metrics_path"
        }

        /// The labels that the target's series carry, as a scrape configuration gives them that keeps the path of a
        /// kubelet's several endpoints apart.
        package var labels: Labels {
            var labels: Labels = ["job": job, "instance": instance, "metrics_path": metricsPath]
            labels["node"] = node
            return labels
        }
    }

    package struct Log: Decodable, Sendable {
        package var component: String
        package var node: String?
        package var file: String
        package var format: String
    }

    package struct Objects: Decodable, Sendable {
        package var kind: String
        package var mode: String
        package var file: String
    }

    package var format: Int
    package var cluster: String
    package var startMs: Int64
    package var endMs: Int64
    package var targets: [Target]
    package var logs: [Log]
    package var objects: [Objects]

    private enum CodingKeys: String, CodingKey {
        case format, cluster, targets, logs, objects
        case startMs = "start_ms"
        case endMs = "end_ms"
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        format = try container.decode(Int.self, forKey: .format)
        cluster = try container.decode(String.self, forKey: .cluster)
        startMs = try container.decode(Int64.self, forKey: .startMs)
        endMs = try container.decode(Int64.self, forKey: .endMs)
        targets = try container.decodeIfPresent([Target].self, forKey: .targets) ?? []
        logs = try container.decodeIfPresent([Log].self, forKey: .logs) ?? []
        objects = try container.decodeIfPresent([Objects].self, forKey: .objects) ?? []
    }

    /// Reads the manifest of a recording's directory.
    ///
    /// - Throws: ``RecordingError``.
    package static func load(directory: String) throws(RecordingError) -> RecordingManifest {
        let path = directory + "/recording.json"
        guard let data = FileManager.default.contents(atPath: path) else {
            throw RecordingError(
                file: path, place: nil,
                reason: "can't be read; a recording is a directory with a file recording.json")
        }
        let manifest: RecordingManifest
        do {
            manifest = try JSONDecoder().decode(RecordingManifest.self, from: data)
        } catch let DecodingError.keyNotFound(key, context) {
            let place = (context.codingPath + [key]).map { $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)" }
                .joined()
            throw RecordingError(file: path, place: nil, reason: "the field \(place.drop { $0 == "." }) is missing")
        } catch let DecodingError.typeMismatch(_, context) {
            let place = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)" }.joined()
            throw RecordingError(
                file: path, place: nil, reason: "the field \(place.drop { $0 == "." }) has a wrong type")
        } catch {
            throw RecordingError(file: path, place: nil, reason: "not valid JSON")
        }
        guard manifest.format == 1 else {
            throw RecordingError(
                file: path, place: nil, reason: "format \(manifest.format) is not known; this version reads format 1")
        }
        return manifest
    }
}

/// A part of a recording that can't be read.
package struct RecordingError: Error, Equatable, Sendable, CustomStringConvertible {
    package var file: String
    /// Where in the uncompressed content, such as `byte 1234` or `line 7`.
    package var place: String?
    package var reason: String

    package var description: String { file + (place.map { ": \($0)" } ?? "") + ": " + reason }
}
