import Foundation

/// How far a file was read, and which file it was.
package struct LogPosition: Sendable, Equatable {
    package var inode: UInt64
    /// Bytes of whole lines that were read.
    package var offset: Int64
    /// The file's first bytes: a file of the same number that begins otherwise is another one.
    package var head: [UInt8]

    package init(inode: UInt64, offset: Int64, head: [UInt8]) {
        self.inode = inode
        self.offset = offset
        self.head = head
    }

    /// The most bytes of ``head``.
    static let headBytes = 256

    /// The position behind all that a file holds; nil where it can't be read.
    package static func end(ofFile path: String) -> LogPosition? {
        guard let handle = FileHandle(forReadingAtPath: path), let inode = FileFollower.inode(handle) else {
            return nil
        }
        let size = Int64((try? handle.seekToEnd()) ?? 0)
        return LogPosition(inode: inode, offset: size, head: FileFollower.head(handle))
    }
}

/// Follows one path through rotations.
///
/// A file that was renamed is read to its end before the new one is begun; one that was cut to zero (copytruncate)
/// is begun anew, and what it held beyond the last position is taken from the copy, if it lies in the same folder.
package struct FileFollower {
    package let path: String
    package private(set) var position: LogPosition?
    private var handle: FileHandle?
    /// Lines longer than this are cut; the rest of the line is passed over.
    private let maxLineBytes = 1 << 20
    /// Why the file can't be read just now; nil where it can.
    package private(set) var problem: String?
    /// How many polls a renamed file must be silent before it is left: its writer may not have opened the new one yet.
    private let patience: Int
    private var silentPolls = 0
    /// Rotations after which lines may be in no file that can be read.
    private var gaps = 0
    /// The last files that were left for others.
    private var left: [UInt64] = []

    /// - Parameters:
    ///   - position: where a process before this one stopped.
    ///   - patience: polls for which a renamed file must be silent before it is left.
    package init(path: String, position: LogPosition?, patience: Int = 10) {
        self.path = path
        self.position = position
        self.patience = patience
    }

    /// Reads the whole lines that came since the last call.
    ///
    /// - Parameters:
    ///   - limit: bytes after which the rest is left to the next call.
    ///   - body: gets each line without its line break.
    /// - Returns: Bytes read; 0 where there is nothing new.
    package mutating func poll(limit: Int = 16 << 20, _ body: (UnsafeRawBufferPointer) -> Void) -> Int {
        var total = 0
        if handle == nil { total += open(body) }
        guard handle != nil else { return total }
        total += followTruncation(body)
        let read = readLines(limit: limit, body)
        total += read
        silentPolls = read == 0 ? silentPolls + 1 : 0
        // Only a file that was read to its end may be left for the one that took its place.
        if total < limit { total += followRename(body) }
        return total
    }

    /// How often, since the last call, a file was rotated away whose end may not have been read.
    package mutating func takeGaps() -> Int {
        defer { gaps = 0 }
        return gaps
    }

    /// Opens the path, first reading to its end the file in which the last process stopped, wherever it is now.
    private mutating func open(_ body: (UnsafeRawBufferPointer) -> Void) -> Int {
        guard let new = FileHandle(forReadingAtPath: path), let inode = FileFollower.inode(new) else {
            problem = "\(path): the log file is not there yet, or can't be read; it is tried again"
            return 0
        }
        problem = nil
        var total = 0
        if let old = position {
            let head = FileFollower.head(new, count: old.head.count)
            let size = Int64((try? new.seekToEnd()) ?? 0)
            if old.inode != inode || head != old.head || size < old.offset {
                total += readRest(of: old, except: new, body)
                position = LogPosition(inode: inode, offset: 0, head: FileFollower.head(new))
            }
        } else {
            position = LogPosition(inode: inode, offset: 0, head: FileFollower.head(new))
        }
        handle = new
        return total
    }

    /// Reads what rotated files hold beyond a position: the renamed file itself or the copy of a truncated one, then
    /// those that were rotated after it.
    private mutating func readRest(
        of old: LogPosition, except current: FileHandle, _ body: (UnsafeRawBufferPointer) -> Void
    ) -> Int {
        let files = rotatedFiles(except: current)
        let first = files.firstIndex { file in
            let candidate = file.handle
            return (old.head.count > 0 || FileFollower.inode(candidate) == old.inode)
                && FileFollower.head(candidate, count: old.head.count) == old.head
                && Int64((try? candidate.seekToEnd()) ?? 0) >= old.offset
        }
        guard let first else {
            gaps += 1
            return 0
        }
        var total = 0
        for (index, file) in files[first...].enumerated() {
            var follower = FileFollower(path: path, position: nil)
            follower.handle = file.handle
            follower.position = index == 0 ? old : LogPosition(inode: 0, offset: 0, head: [])
            total += follower.readLines(limit: .max, lastLine: true, body)
        }
        return total
    }

    /// The files that this path's log was rotated to, the one that was written to last at the end.
    ///
    /// Compressed ones can't be read.
    private func rotatedFiles(except current: FileHandle) -> [(handle: FileHandle, writtenNs: Int64)] {
        let url = URL(fileURLWithPath: path)
        let folder = url.deletingLastPathComponent().path
        let name = url.lastPathComponent
        let stem = url.deletingPathExtension().lastPathComponent
        let inode = FileFollower.inode(current)
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { candidate in
            // kubelet.log.1, kubelet.log-20261123, kubelet-20261123.log
            let isDated = candidate.hasPrefix(stem + "-") && candidate.dropFirst(stem.count + 1).first?.isNumber == true
            return candidate.hasPrefix(name + ".") || candidate.hasPrefix(name + "-") || isDated
        }.filter { candidate in
            ![".gz", ".zst", ".xz", ".bz2", ".tmp"].contains(where: candidate.hasSuffix)
        }.compactMap { candidate in
            guard let handle = FileHandle(forReadingAtPath: folder + "/" + candidate),
                FileFollower.inode(handle) != inode
            else { return nil }
            return (handle, FileFollower.writtenNs(handle))
        }.sorted { $0.writtenNs < $1.writtenNs }
    }

    /// Goes on with the file that has taken the path's place, if one has.
    private mutating func followRename(_ body: (UnsafeRawBufferPointer) -> Void) -> Int {
        guard handle != nil, let old = position, let fresh = FileHandle(forReadingAtPath: path),
            let inode = FileFollower.inode(fresh), inode != old.inode, silentPolls >= patience
        else { return 0 }
        silentPolls = 0
        var rest = readLines(limit: .max, lastLine: true, body)
        // Those that took the path's place between the two, and were renamed in their turn.
        let leftNs = handle.map(FileFollower.writtenNs) ?? .max
        left.append(old.inode)
        for file in rotatedFiles(except: fresh) where file.writtenNs >= leftNs {
            guard let inode = FileFollower.inode(file.handle), !left.contains(inode) else { continue }
            left.append(inode)
            var follower = FileFollower(path: path, position: LogPosition(inode: 0, offset: 0, head: []))
            follower.handle = file.handle
            rest += follower.readLines(limit: .max, lastLine: true, body)
        }
        left = left.suffix(16)
        handle = fresh
        position = LogPosition(inode: inode, offset: 0, head: FileFollower.head(fresh))
        return rest + readLines(limit: .max, body)
    }

    /// Begins the file anew if it was cut, after what its copy holds beyond the position.
    private mutating func followTruncation(_ body: (UnsafeRawBufferPointer) -> Void) -> Int {
        guard let handle, let old = position else { return 0 }
        let size = Int64((try? handle.seekToEnd()) ?? 0)
        guard size < old.offset || FileFollower.head(handle, count: old.head.count) != old.head else { return 0 }
        let rest = readRest(of: old, except: handle, body)
        position = LogPosition(inode: old.inode, offset: 0, head: FileFollower.head(handle))
        return rest
    }

    /// - Parameter lastLine: whether what stands behind the last line break is a line as well: nobody will end it.
    private mutating func readLines(
        limit: Int, lastLine: Bool = false, _ body: (UnsafeRawBufferPointer) -> Void
    ) -> Int {
        guard let handle, var position else { return 0 }
        var total = 0
        var carry: [UInt8] = []
        do {
            try handle.seek(toOffset: UInt64(position.offset))
            while total < limit {
                guard let data = try handle.read(upToCount: 256 << 10), !data.isEmpty else { break }
                carry.append(contentsOf: data)
                var consumed = FileFollower.lines(carry, maxLineBytes: maxLineBytes, body)
                if consumed == 0, carry.count > 8 * maxLineBytes {
                    // A line without an end must not fill the memory: its start is a line, its rest another.
                    carry.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0.prefix(maxLineBytes))) }
                    consumed = carry.count
                }
                carry.removeFirst(consumed)
                position.offset += Int64(consumed)
                total += consumed
            }
            if lastLine, !carry.isEmpty {
                carry.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0.prefix(maxLineBytes))) }
                position.offset += Int64(carry.count)
                total += carry.count
            }
            problem = nil
        } catch {
            problem = "\(path): \(error)"
        }
        if total > 0, position.head.count < LogPosition.headBytes {
            position.head = Array(FileFollower.head(handle).prefix(Int(position.offset)))
        }
        self.position = position
        return total
    }

    /// Calls `body` for each whole line; returns the bytes up to the last line break.
    private static func lines(_ bytes: [UInt8], maxLineBytes: Int, _ body: (UnsafeRawBufferPointer) -> Void) -> Int {
        bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return 0 }
            var start = 0
            while start < buffer.count, let found = memchr(base + start, 10, buffer.count - start) {
                let end = UnsafeRawPointer(found) - base
                let stop = min(end, start + maxLineBytes)
                body(UnsafeRawBufferPointer(rebasing: buffer[start..<stop]))
                start = end + 1
            }
            return start
        }
    }

    private static func writtenNs(_ handle: FileHandle) -> Int64 {
        var status = stat()
        fstat(handle.fileDescriptor, &status)
        return Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    }

    fileprivate static func inode(_ handle: FileHandle) -> UInt64? {
        var status = stat()
        guard fstat(handle.fileDescriptor, &status) == 0 else { return nil }
        return UInt64(status.st_ino)
    }

    fileprivate static func head(_ handle: FileHandle, count: Int = LogPosition.headBytes) -> [UInt8] {
        guard count > 0, (try? handle.seek(toOffset: 0)) != nil, let data = try? handle.read(upToCount: count) else {
            return []
        }
        return [UInt8](data)
    }
}
