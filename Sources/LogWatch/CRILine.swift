import Series

/// A line of a container's log as runtimes write it: `<time> <stdout|stderr> <F|P> <message>`
/// (Kubernetes' design proposal "kubelet-cri-logging"; containerd and CRI-O, in `/var/log/pods`).
package struct CRILine {
    package var timestampMs: Int64
    package var message: UnsafeRawBufferPointer

    /// - Returns: nil for what is no such line.
    package init?(_ line: UnsafeRawBufferPointer) {
        // A time has twenty bytes and more; most lines of other logs are told by the first.
        guard line.count > 30, line[0] >= 48, line[0] <= 57, line[4] == UInt8(ascii: "-"),
            line[10] == UInt8(ascii: "T"), let timeEnd = line.prefix(40).firstIndex(of: UInt8(ascii: " "))
        else { return nil }
        let rest = UnsafeRawBufferPointer(rebasing: line[(timeEnd + 1)...])
        guard rest.starts(with: "stdout ".utf8) || rest.starts(with: "stderr ".utf8), rest.count >= 9,
            rest[7] == UInt8(ascii: "F") || rest[7] == UInt8(ascii: "P"), rest[8] == UInt8(ascii: " "),
            let timestampMs = TimeFormat.milliseconds(rfc3339: String(decoding: line[..<timeEnd], as: UTF8.self))
        else { return nil }
        self.timestampMs = timestampMs
        message = UnsafeRawBufferPointer(rebasing: rest[9...])
    }
}
