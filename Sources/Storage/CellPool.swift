/// Byte streams that grow a few bytes at a time, each a chain of small cells out of shared slabs.
///
/// A series that changes gets a byte or two with each scrape: an array of its own would cost more than what is in it.
/// Nothing is given back one by one; the pool goes as a whole. Used under the store's lock alone, as ``Slabs``.
final class CellPool {
    /// The bytes of a cell: the number of the next one, and payload.
    private static let cellBytes = 32
    static let payload = cellBytes - 4
    private static let slabBits = 13
    private static let slabCells = 1 << slabBits

    @exclusivity(unchecked) private var slabs: [UnsafeMutableRawPointer] = []
    @exclusivity(unchecked) private var cells = 0

    deinit { for slab in slabs { slab.deallocate() } }

    /// Where a stream begins and how far it goes.
    struct Chain: BitwiseCopyable {
        var first: UInt32 = 0
        var last: UInt32 = 0
        /// Bytes in the stream.
        var length: UInt32 = 0
    }

    @inline(__always)
    private func cell(_ number: UInt32) -> UnsafeMutableRawPointer {
        slabs[Int(number) >> CellPool.slabBits] + (Int(number) & (CellPool.slabCells - 1)) * CellPool.cellBytes
    }

    private func newCell() -> UInt32 {
        if cells == slabs.count << CellPool.slabBits {
            slabs.append(.allocate(byteCount: CellPool.slabCells * CellPool.cellBytes, alignment: 64))
        }
        cells += 1
        return UInt32(cells - 1)
    }

    /// Appends bytes to a stream.
    func append(_ bytes: UnsafePointer<UInt8>, _ count: Int, to chain: inout Chain) {
        var done = 0
        while done < count {
            let used = Int(chain.length) % CellPool.payload
            if used == 0 {
                let next = newCell()
                if chain.length == 0 {
                    chain.first = next
                } else {
                    cell(chain.last).storeBytes(of: next, as: UInt32.self)
                }
                chain.last = next
            }
            let part = min(count - done, CellPool.payload - used)
            (cell(chain.last) + 4 + used).copyMemory(from: bytes + done, byteCount: part)
            chain.length += UInt32(part)
            done += part
        }
    }

    /// Appends a stream's bytes to an array.
    func read(_ chain: Chain, into out: inout [UInt8]) {
        var left = Int(chain.length)
        var number = chain.first
        while left > 0 {
            let start = cell(number)
            let part = min(left, CellPool.payload)
            out.append(contentsOf: UnsafeRawBufferPointer(start: start + 4, count: part))
            left -= part
            number = start.load(as: UInt32.self)
        }
    }
}
