package spec

import (
	"container/list"
	"sync"
)

// Bounds of a Store.
const (
	// DefaultObjects and DefaultBytes are how much a Store keeps before it forgets what is oldest.
	DefaultObjects = 100_000
	DefaultBytes   = 256 << 20
	// maxGone is how many deleted ids a collection remembers.
	maxGone = 10_000
)

// Store keeps the objects that requests make, in collections that are named after their paths. It is safe for concurrent use.
type Store struct {
	mu          sync.Mutex
	collections map[string]*collection
	singles     map[string]*Object
	// age has every object of a collection, the oldest first.
	age        *list.List
	objects    int
	bytes      int64
	maxObjects int
	maxBytes   int64
}

type collection struct {
	order *list.List // of *entry, in the order in which they were made
	byID  map[string]*entry
	gone  map[string]bool
	// filled is set once the collection has been given what was there before anybody asked.
	filled bool
}

type entry struct {
	path string
	obj  *Object
	here *list.Element // in its collection
	aged *list.Element
}

// Object is one thing that a client made. It is replaced and never changed.
type Object struct {
	ID string
	// JSON as it was answered last.
	JSON []byte
	// Body is what the client sent to make it, and Content the file in it with its media type.
	Body    []byte
	Content []byte
	Media   string
	// madeUp is set for what no client made: once it is deleted it can be made up again.
	madeUp bool
}

func (o *Object) size() int64 {
	const overhead = 300
	return int64(len(o.JSON)+len(o.Body)+len(o.Content)) + overhead
}

// NewStore returns an empty store for at most so many objects and bytes; 0 for the defaults.
func NewStore(objects int, bytes int64) *Store {
	if objects <= 0 {
		objects = DefaultObjects
	}
	if bytes <= 0 {
		bytes = DefaultBytes
	}
	return &Store{collections: map[string]*collection{}, singles: map[string]*Object{}, age: list.New(), maxObjects: objects, maxBytes: bytes}
}

func (s *Store) at(path string) *collection {
	c := s.collections[path]
	if c == nil {
		c = &collection{order: list.New(), byID: map[string]*entry{}}
		s.collections[path] = c
	}
	return c
}

// Put makes or replaces an object in a collection. One that replaces another keeps its place.
func (s *Store) Put(path string, o *Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(path, o)
}

func (s *Store) put(path string, o *Object) {
	c := s.at(path)
	if e := c.byID[o.ID]; e != nil {
		s.bytes += o.size() - e.obj.size()
		e.obj = o
	} else {
		e := &entry{path: path, obj: o}
		e.here = c.order.PushBack(e)
		e.aged = s.age.PushBack(e)
		c.byID[o.ID] = e
		delete(c.gone, o.ID)
		s.objects++
		s.bytes += o.size()
	}
	for s.age.Len() > 1 && (s.objects > s.maxObjects || s.bytes > s.maxBytes) {
		s.drop(s.age.Front().Value.(*entry))
	}
}

func (s *Store) drop(e *entry) {
	c := s.collections[e.path]
	c.order.Remove(e.here)
	s.age.Remove(e.aged)
	delete(c.byID, e.obj.ID)
	s.objects--
	s.bytes -= e.obj.size()
	if c.order.Len() == 0 && len(c.gone) == 0 && !c.filled {
		delete(s.collections, e.path)
	}
}

// Get is an object, or nil; gone says that it was there and was deleted.
func (s *Store) Get(path, id string) (o *Object, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collections[path]
	if c == nil {
		return nil, false
	}
	if e := c.byID[id]; e != nil {
		return e.obj, false
	}
	return nil, c.gone[id]
}

// Delete takes an object out of its collection and remembers that it was there, if a client had made it.
func (s *Store) Delete(path, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collections[path]
	if c == nil || c.byID[id] == nil {
		return
	}
	e := c.byID[id]
	if !e.obj.madeUp {
		if len(c.gone) >= maxGone {
			clear(c.gone)
		}
		if c.gone == nil {
			c.gone = map[string]bool{}
		}
		c.gone[id] = true
	}
	s.drop(e)
}

// count is how many objects a collection has.
func (s *Store) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.collections[path]; c != nil {
		return c.order.Len()
	}
	return 0
}

// Fill gives a collection that is still untouched what was there from the beginning, once.
func (s *Store) Fill(path string, objects func() []*Object) {
	s.mu.Lock()
	c := s.at(path)
	if c.filled || c.order.Len() > 0 || len(c.gone) > 0 {
		c.filled = true
		s.mu.Unlock()
		return
	}
	c.filled = true
	s.mu.Unlock()
	for _, o := range objects() {
		s.Put(path, o)
	}
}

// Page of a collection.
type Page struct {
	Objects []*Object
	// More is whether there are others beyond the last one.
	More bool
}

// Cursor says which part of a collection is wanted.
type Cursor struct {
	// After and Before are ids, in the order that is asked for; empty for none. One that is not there is as good as none.
	After, Before string
	// Ascending is the oldest first.
	Ascending bool
	Limit     int
	// Keep says which objects count; nil for all.
	Keep func(*Object) bool
}

// List is a part of a collection.
func (s *Store) List(path string, q Cursor) Page {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collections[path]
	if c == nil {
		return Page{}
	}
	first, next, prev := c.order.Back, (*list.Element).Prev, (*list.Element).Next
	if q.Ascending {
		first, next, prev = c.order.Front, (*list.Element).Next, (*list.Element).Prev
	}
	var p Page
	keep := func(e *list.Element) bool { return q.Keep == nil || q.Keep(e.Value.(*entry).obj) }
	if before := c.byID[q.Before]; q.Before != "" && before != nil {
		// The page that ends just before it.
		for e := prev(before.here); e != nil; e = prev(e) {
			if !keep(e) {
				continue
			}
			if len(p.Objects) == q.Limit {
				p.More = true
				break
			}
			p.Objects = append(p.Objects, e.Value.(*entry).obj)
		}
		for i, j := 0, len(p.Objects)-1; i < j; i, j = i+1, j-1 {
			p.Objects[i], p.Objects[j] = p.Objects[j], p.Objects[i]
		}
		return p
	}
	e := first()
	if after := c.byID[q.After]; q.After != "" && after != nil {
		e = next(after.here)
	}
	for ; e != nil; e = next(e) {
		if !keep(e) {
			continue
		}
		if len(p.Objects) == q.Limit {
			p.More = true
			break
		}
		p.Objects = append(p.Objects, e.Value.(*entry).obj)
	}
	return p
}

// Single is the one object of a path that has no ids, or nil.
func (s *Store) Single(path string) *Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.singles[path]
}

// SetSingle replaces it; nil takes it away.
func (s *Store) SetSingle(path string, o *Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.singles[path]; old != nil {
		s.bytes -= old.size()
	}
	if o == nil {
		delete(s.singles, path)
		return
	}
	if s.singles[path] == nil && len(s.singles) >= maxGone {
		return // so many settings are nobody's
	}
	s.singles[path] = o
	s.bytes += o.size()
}

// Len is how many objects there are.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects
}
