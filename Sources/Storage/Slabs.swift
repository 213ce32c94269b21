/// A list of plain values that grows without moving: memory in slabs of equal size.
///
/// An array that doubles holds up to three times what it needs while it grows; with a million series that is what a
/// small machine does not have.
///
/// Used under the store's lock alone: what is marked as unchecked was asked for at run time with each sample.
final class Slabs<Element: BitwiseCopyable> {
    /// Elements in a slab: of 48 bytes each, 192 KiB.
    private static var slabBits: Int { 12 }
    private static var slabSize: Int { 1 << slabBits }

    @exclusivity(unchecked) private var slabs: [UnsafeMutablePointer<Element>] = []
    private let initial: Element
    @exclusivity(unchecked) private(set) var count = 0

    /// - Parameter initial: the value of an element that was not set yet.
    init(repeating initial: Element) { self.initial = initial }

    deinit { for slab in slabs { slab.deallocate() } }

    /// Makes the list as long as that, at least.
    func grow(to wanted: Int) {
        while slabs.count << Slabs.slabBits < wanted {
            let slab = UnsafeMutablePointer<Element>.allocate(capacity: Slabs.slabSize)
            slab.initialize(repeating: initial, count: Slabs.slabSize)
            slabs.append(slab)
        }
        count = max(count, wanted)
    }

    /// Makes the list shorter.
    func cut(to wanted: Int) {
        while (slabs.count - 1) << Slabs.slabBits >= max(wanted, 1) { slabs.removeLast().deallocate() }
        count = min(count, wanted)
    }

    func append(_ element: Element) {
        grow(to: count + 1)
        self[count - 1] = element
    }

    subscript(_ index: Int) -> Element {
        @inline(__always) get {
            precondition(index >= 0 && index < count, "the list has no such place")
            return slabs[index >> Slabs.slabBits][index & (Slabs.slabSize - 1)]
        }
        @inline(__always) set {
            precondition(index >= 0 && index < count, "the list has no such place")
            slabs[index >> Slabs.slabBits][index & (Slabs.slabSize - 1)] = newValue
        }
    }

    /// The place of an element in memory, which stays where it is.
    @inline(__always)
    func pointer(_ index: Int) -> UnsafeMutablePointer<Element> {
        precondition(index >= 0 && index < count, "the list has no such place")
        return slabs[index >> Slabs.slabBits] + (index & (Slabs.slabSize - 1))
    }
}
