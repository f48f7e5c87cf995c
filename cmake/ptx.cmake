# The same test files once more, as nvcc compiles them for a GPU, on a CPU: tests/ptx interprets the PTX they carry. Label:
# ptx. `ctest -L ptx`.

set(ptx_flags ${nvcc_flags} -O1 -diag-suppress=20013,20015)
list(REMOVE_ITEM ptx_flags -O3) # of the host's side, which only prepares and compares
set(ptx_library ${CMAKE_BINARY_DIR}/ptx_cudart.o)
file(GLOB ptx_sources CONFIGURE_DEPENDS tests/ptx/*.h)
add_custom_command(
  OUTPUT ${ptx_library}
  COMMAND ${HN_NVCC} -std=c++20 -O2 -I${CMAKE_SOURCE_DIR}/csrc -DHN_NO_TORCH
          -Xcompiler=-fwrapv,-frounding-math,-ffp-contract=off,-Wall,-Wextra
          -c ${CMAKE_SOURCE_DIR}/tests/ptx/cudart.cpp -o ${ptx_library}
  DEPENDS tests/ptx/cudart.cpp ${ptx_sources}
  COMMENT "Building the PTX interpreter")
add_custom_target(ptx_cudart DEPENDS ${ptx_library})

# PTX alone, readable; and our runtime in place of CUDA's.
set(ptx_compile -gencode arch=compute_80,code=compute_80 --no-compress -x cu)
set(ptx_link -Xlinker $<TARGET_FILE:hn_cpu_loops> -Xlinker ${ptx_library})
foreach(source ${kernel_tests})
  get_filename_component(name ${source} NAME_WE)
  add_custom_command(
    OUTPUT ${name}_ptx.o
    COMMAND ${HN_NVCC} ${ptx_flags} ${ptx_compile} -MD -MF ${name}_ptx.d -c ${source} -o ${name}_ptx.o
    DEPENDS ${source}
    DEPFILE ${name}_ptx.d
    COMMENT "Building ${name}_ptx.o")
  add_custom_command(
    OUTPUT ${name}_ptx
    COMMAND ${HN_NVCC} -cudart none ${name}_ptx.o ${ptx_link} -o ${name}_ptx
    DEPENDS ${name}_ptx.o hn_cpu_loops ${ptx_library}
    COMMENT "Linking ${name}_ptx")
  add_custom_target(build_${name}_ptx ALL DEPENDS ${name}_ptx)
  add_test(NAME ${name}_ptx COMMAND ${CMAKE_BINARY_DIR}/${name}_ptx)
  set_tests_properties(${name}_ptx PROPERTIES LABELS ptx TIMEOUT 600)
endforeach()

# --- The interpreter's own tests, and the mistakes it must find.
add_executable(test_ptx tests/ptx/test_ptx.cpp)
target_link_libraries(test_ptx PRIVATE hn_flags)
set_target_properties(test_ptx PROPERTIES CXX_STANDARD 20)
target_compile_options(test_ptx PRIVATE -O2 -fwrapv -frounding-math)
add_test(NAME test_ptx COMMAND test_ptx)
set_tests_properties(test_ptx PROPERTIES LABELS ptx)

find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  add_test(NAME ptx_mutations
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tests/ptx/mutations.py ${CMAKE_BINARY_DIR}
                   ${CMAKE_BINARY_DIR}/mutations ${HN_NVCC} ${ptx_flags} ${ptx_compile})
  set_tests_properties(ptx_mutations PROPERTIES LABELS ptx TIMEOUT 600 COST 600 PROCESSORS 2) # the longest: begun first
endif()
