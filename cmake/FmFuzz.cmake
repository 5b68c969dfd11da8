# fm_fuzz(name SOURCES … DEPS modules… CORPUS paths… [RUNS n]): a fuzz target.
#
# SOURCES define LLVMFuzzerTestOneInput() (tests/fuzz/fuzz.h).  Always built as
# a ctest that runs the corpus and RUNS seeded mutations; with FM_FUZZ also as
# bin/libfuzzer_<name>, coverage-guided: run it by hand on a copy of the corpus.
include_guard(GLOBAL)
option(FM_FUZZ "Build libFuzzer programs of the fuzz targets (clang)" OFF)
if(FM_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
        message(FATAL_ERROR "FM_FUZZ is ON, but libFuzzer needs clang: "
            "configure with -DCMAKE_C_COMPILER=clang")
    endif()
    target_compile_options(fm_options INTERFACE -fsanitize=fuzzer-no-link)
    target_link_options(fm_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

function(fm_fuzz name)
    cmake_parse_arguments(F "" "RUNS" "SOURCES;DEPS;CORPUS" ${ARGN})
    if(NOT F_SOURCES OR NOT F_CORPUS OR F_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "fm_fuzz(${name}): wants SOURCES and CORPUS; "
            "unknown: ${F_UNPARSED_ARGUMENTS}")
    endif()
    if(NOT F_RUNS)
        set(F_RUNS 10000)
    endif()
    list(TRANSFORM F_CORPUS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
    fm_program(fuzz_${name} DEPS ${F_DEPS} base
        SOURCES ${F_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/fuzz_main.c)
    target_include_directories(fuzz_${name} PRIVATE
        ${PROJECT_SOURCE_DIR}/tests/fuzz)
    set_target_properties(fuzz_${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} --runs ${F_RUNS} --seed 1
        ${F_CORPUS})
    set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz TIMEOUT 300)
    if(FM_FUZZ)
        fm_program(libfuzzer_${name} SOURCES ${F_SOURCES} DEPS ${F_DEPS} base
            LINK -fsanitize=fuzzer)
        target_include_directories(libfuzzer_${name} PRIVATE
            ${PROJECT_SOURCE_DIR}/tests/fuzz)
    endif()
endfunction()
